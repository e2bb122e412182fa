"""Write docs/json-schema.json from the dataclasses of which the commands write objects with --json.

python docs/make_json_schema.py
"""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from training.config import PROJECT

FILE = Path(__file__).with_name("json-schema.json")
OBJECTS = {
    "training.console.json_output": ["Event", "Error"],
    "search.monitoring.study_status": ["StudyStatus"],
    "search.control": ["RequestAnswer"],
    "search.monitoring.json_view": ["StudyStarted", "TrialStarted", "Epoch", "TrialEnded"],
    "search.outputs.study_objects": ["StudyEnded", "Report"],
    "search.outputs.confirmation_objects": ["ConfirmationEnded"],
    "search.outputs.comparison_objects": ["ComparisonOfStudies"],
    "search.retraining.reproduction_objects": ["ReproductionOfTrial"],
    "search.simulation.replay_objects": ["ReplayOfTable", "ReplayOfStudy"],
    "search.space.search_space": ["ShownSpace"],
    "training.run": ["TrainingStarted", "TrainingEpoch", "TrainingEnded"],
    "training.predict": ["Predictions"],
    "training.export": ["ExportedModel"],
}
"""Module -> the classes of objects that it writes; the `type` of an object tells which one it is."""


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def adapter() -> TypeAdapter[Any]:
    """What reads and describes every object."""
    classes = [getattr(importlib.import_module(module), name) for module, names in OBJECTS.items() for name in names]
    one_of_them: Any = Annotated[Union[tuple(classes)], Field(discriminator="type")]  # noqa: UP007
    return TypeAdapter(one_of_them, config=ConfigDict(use_attribute_docstrings=True))


def written() -> str:
    """The whole file."""
    schema = adapter().json_schema(mode="serialization", schema_generator=_Untitled)
    for described in schema["$defs"].values():
        if "properties" in described:
            described["required"] = [*described["properties"]]  # an object has all its fields
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Objects that the commands of Tunesmith write with --json",
        "description": "Written by python docs/make_json_schema.py from the dataclasses of the commands.",
    }
    return json.dumps(_in_one_line(head | schema), indent=1) + "\n"


def _in_one_line(value: Any) -> Any:
    """Descriptions without the line breaks of the source code."""
    if isinstance(value, dict):
        joined = {name: _in_one_line(member) for name, member in value.items()}
        return joined | (
            {"description": " ".join(value["description"].split())} if isinstance(value.get("description"), str) else {}
        )
    return [*map(_in_one_line, value)] if isinstance(value, list) else value


if __name__ == "__main__":
    FILE.write_text(written())
    print(f"Wrote {FILE.relative_to(PROJECT)}")
