"""The manifest for KubeRay in `docs/cluster.md`: it fits the operator's published schema, the image and our options."""

import hashlib
import re
import shlex
from typing import Any

import jsonschema
import pytest
import yaml
from test_dockerfile import words_of

from search.settings import StudySettings
from training.config import PROJECT, DataConfig
from training.console.command_line import parse

KUBERAY = "v1.7.0"
"""The release of KubeRay that has the schema, in `ray-operator/config/crd/bases/ray.io_rayjobs.yaml`."""
SCHEMA = DataConfig().data_dir / "kuberay" / "ray.io_rayjobs.yaml"
SCHEMA_SHA256 = "01a5cf3b17c1769fda44af7e82debcd98722f0c27b9ab84d084681c6649121f5"
CHECKED_SHA256 = "89fb5f609cccb3877325faa0ea01f3f5558e63977f2b108bdb5a3b3661983ca9"
"""Of the manifest that was checked by the schema, which has 1.4 MB and is not part of the project."""
DOCUMENT = (PROJECT / "docs" / "cluster.md").read_text()
(TEXT,) = re.findall(r"```yaml\n(apiVersion: ray.io/v1\n.*?)```", DOCUMENT, re.DOTALL)
JOB: dict[str, Any] = yaml.safe_load(TEXT)
CLUSTER = JOB["spec"]["rayClusterSpec"]
PODS = [CLUSTER["headGroupSpec"]["template"]["spec"], *(g["template"]["spec"] for g in CLUSTER["workerGroupSpecs"])]
CONTAINERS = [container for pod in PODS for container in pod["containers"]]


def variable(container: dict[str, Any], name: str) -> float:
    (value,) = (one["value"] for one in container["env"] if one["name"] == name)
    return float(value)


def without_unknown_fields(schema: Any) -> Any:
    """The same schema, which refuses fields that it does not name: the API server would drop them."""
    if isinstance(schema, list):
        return [without_unknown_fields(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: without_unknown_fields(value) for name, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        strict.setdefault("additionalProperties", False)
    return strict


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    if not SCHEMA.is_file():
        pytest.skip("KubeRay's schema is not at hand; docs/cluster.md names it")
    assert hashlib.sha256(SCHEMA.read_bytes()).hexdigest() == SCHEMA_SHA256
    with SCHEMA.open() as stream:
        (version,) = yaml.load(stream, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"][:1]
    schema = without_unknown_fields(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # the API server knows it
    return jsonschema.Draft202012Validator(schema)


def test_manifest_is_the_one_that_was_checked() -> None:
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    assert digest == CHECKED_SHA256, f"put KubeRay's schema of {KUBERAY} at {SCHEMA}, run this file, then note {digest}"


def test_manifest_fits_the_published_schema(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(JOB)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (("spec",), "backOffLimit", 3),
        (("spec", "rayClusterSpec", "authOptions"), "mode", "secret"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "maxReplicas", "four"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0), "images", "tunesmith"),
    ],
)
def test_schema_refuses_mistakes(
    validator: jsonschema.Draft202012Validator, place: tuple[Any, ...], name: str, value: object
) -> None:
    wrong: Any = yaml.safe_load(TEXT)
    part = wrong
    for step in place:
        part = part[step]
    part[name] = value
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(wrong)


def test_job_runs_a_study_that_goes_on_after_a_restart() -> None:
    program, command, *options = shlex.split(JOB["spec"]["entrypoint"])
    assert [program, command] == ["tunesmith", "run"]
    settings = parse(StudySettings, "", options)
    assert (settings.address, settings.resume_existing) == ("auto", True)
    assert settings.name == JOB["metadata"]["name"]
    assert JOB["spec"]["backoffLimit"] > 0
    for container in CONTAINERS:
        (mount,) = container["volumeMounts"]
        assert settings.results_dir.is_relative_to(mount["mountPath"])
    for pod in PODS:
        assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]


def test_nodes_have_the_image_of_this_version() -> None:
    constraints = (PROJECT / "constraints.txt").read_text()
    assert f"ray=={CLUSTER['rayVersion']}" in constraints.splitlines()
    (version,) = re.findall(r'^version = "(.+)"', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {container["image"] for container in CONTAINERS} == {f"REGISTRY/tunesmith:{version}"}
    (user,) = re.findall(r"--uid (\d+) ", " ".join(words_of("RUN")))
    assert {pod["securityContext"]["fsGroup"] for pod in PODS} == {int(user)}


def test_nodes_have_time_to_end() -> None:
    assert variable(CONTAINERS[0], "RAY_JOB_STOP_WAIT_TIME_S") >= 600
    for pod, container in zip(PODS, CONTAINERS, strict=True):
        assert variable(container, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S") < pod["terminationGracePeriodSeconds"]


def test_cluster_has_between_one_and_four_nodes_for_trials() -> None:
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert CLUSTER["enableInTreeAutoscaling"] is True
    (group,) = CLUSTER["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 4)
