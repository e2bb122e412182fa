"""Replay studies on recorded learning curves, without training."""

from search.settings import RENAMED_SCHEDULING
from search.simulation.settings import ReplaySettings
from training.console.command_line import parse, refuse, run_command


def main() -> int:
    """Replay the table that the command line names; returns the exit status."""
    options = parse(ReplaySettings, __doc__ or "", renamed=RENAMED_SCHEDULING)

    from search.simulation import counterfactual, grid_study  # optuna, Ray and pandas take seconds
    from search.simulation.learning_curves import is_grid, read_csv, read_grid
    from search.simulation.study_curves import is_other_study, is_study, read_other_study, read_study

    try:
        table = read_csv(options.table)
        if is_grid(table):
            grid_study.show(read_grid(options.table, table), options)
        elif is_study(table):
            counterfactual.show(read_study(options.table, table), options)
        elif is_other_study(table):
            other = read_other_study(options.table, table)
            counterfactual.show(other.trials, options, other)
        else:
            raise ValueError(
                f"{options.table} is neither a table of learning curves nor the epochs.csv of a study: "
                f"its columns are {', '.join(map(str, table.columns))}"
            )
    except (ValueError, OSError) as error:
        refuse(str(error))
    return 0


if __name__ == "__main__":
    run_command(main, outlive_reader=False)
