"""Single runs as a chapter: accuracy before and after, curves, adapters, answers that differ, settings."""

from collections.abc import Sequence

from moslora.evaluation.recording import chance_of, group_note, scoring_notes, units_of
from moslora.reports.accuracy import Accuracy, accuracy_plot
from moslora.reports.coverage import part_tables
from moslora.reports.disagreement import disagreement
from moslora.reports.drawing import Plot, looks
from moslora.reports.headline import of_runs, perplexity_text
from moslora.reports.inside import adapter_plots
from moslora.reports.learning import learning_curves
from moslora.reports.medians import medians_table
from moslora.reports.parts import Cell, Chapter, Fold, Part, Plots, Points, Table, Text
from moslora.reports.progress import unfinished
from moslora.reports.reading import Metrics, StoredRun
from moslora.reports.seeing import add_tasks, sees_pictures
from moslora.reports.sheets import run_sheet
from moslora.reports.side_by_side import GENERATION, TEXTS, alike, columns, differing
from moslora.reports.wording import NONE, amount, duration, estimate, facts_table, gigabytes, settings

ROWS = 40  # questions shown side by side for a pair
LIMIT = (
    "Intervals are of one run, for new {} of the same kind (Wilson): another seed may give another accuracy. To"
    " compare methods, give several seeds to `moslora compare`."
)
INTERVAL = "of this run, for new {}"


def runs_chapter(runs: Sequence[StoredRun], *, name: str) -> Chapter:
    """The chapter of one run or several; `name` keeps its sections and drawings apart from other chapters'."""
    labels = [run.label for run in runs]
    title = labels[0] if len(runs) == 1 else f"{len(runs)} runs"
    number, summary = of_runs(runs)
    chapter = Chapter(name, title, summary, _facts(runs), number)
    is_scored = any(run.record.evaluations for run in runs)
    intro = "Accuracy in percent, with its 95 % interval." if is_scored else ""
    chapter.add("results", "Results", _table(runs), _held_out(runs), _kinds(runs), intro=intro, is_folded=False)
    chapter.add("accuracy", "Accuracy with intervals", Plots(_accuracy(runs, name)), is_folded=False)
    chapter.add("drawn", "What is drawn", *(run_sheet(run) for run in runs))
    add_tasks(chapter, runs)
    chapter.add("parts", "What is adapted and trained", *part_tables(runs))
    curves = {run.label: [_logged(run)] for run in runs}
    drawn = learning_curves(curves, looks=looks(labels), prefix=name)
    chapter.add("learning", "Learning curves", Plots(drawn), is_folded=is_scored)
    chapter.add("inside", "Inside the adapter" if len(runs) == 1 else "Inside the adapters", *_inside(runs, name))
    chapter.add("answers", "Wrong answers side by side", *_answers(runs))
    notes = [f"{run.label}: {note}" for run in runs for note in run.record.told]
    states = [f"{state}." for run in runs if (state := unfinished(run))]
    chapter.add("limits", "Limits", Points([LIMIT.format(_units(runs)), *_groups(runs), *states, *notes]))
    chapter.add("settings", "Settings, versions and seeds", *_settings(runs))
    return chapter


def _units(runs: Sequence[StoredRun]) -> str:
    return units_of([one.scored for run in runs for one in run.record.evaluations])


def _facts(runs: Sequence[StoredRun]) -> str:
    first = runs[0].record
    methods = ", ".join(dict.fromkeys(_setting(run, "adapter", "method") for run in runs))
    models = ", ".join(dict.fromkeys(_setting(run, "model", "path") for run in runs))
    seeds = ", ".join(dict.fromkeys(str(run.record.seed) for run in runs))
    word = "seed" if "," not in seeds else "seeds"
    return f"{methods} on {models}, {word} {seeds}; {first.created:%d %B %Y}, moslora {first.moslora_version}."


def _setting(run: StoredRun, group: str, name: str) -> str:
    found = run.record.recipe.get(group)
    return str(found.get(name, NONE)) if isinstance(found, dict) else NONE


def _groups(runs: Sequence[StoredRun]) -> list[str]:
    """What intervals count where questions depend on each other (former versions counted each alone), and credits."""
    evaluations = [one for run in runs for one in run.record.evaluations]
    groups = dict.fromkeys(group_note(one.task, one.groups, one.scored) for one in evaluations if one.groups)
    notes = dict.fromkeys(note for one in evaluations for note in scoring_notes(one))
    return [f"{note}." for note in (*groups, *notes)]


def _logged(run: StoredRun) -> Metrics:
    """What was logged, and the validation loss of the weights kept if it was measured at the end alone."""
    loss = run.record.validation_loss
    if loss is None or any("eval_loss" in line for line in run.metrics):
        return run.metrics
    return [*run.metrics, {"step": run.record.steps, "eval_loss": loss}]


def _table(runs: Sequence[StoredRun]) -> Table:
    settings, moments = differing(runs), columns(runs)
    validated = ["validation loss"] if any(run.record.validation_loss is not None for run in runs) else []
    rows = []
    for number, run in enumerate(runs):
        record, found = run.record, [moment.found[number] for moment in moments]
        rows.append(
            [
                Cell(run.label, _setting(run, "adapter", "method")),
                *(setting.values[number] for setting in settings),
                *(estimate(one.accuracy, one.low, one.high) if one else NONE for one in found),
                *([_validation(run)] if validated else []),
                f"{record.train_loss:.3f}" if record.train_loss is not None else NONE,
                f"{record.steps:,}",
                Cell(amount(record.parameters and record.parameters.trainable)),
                duration(record.wall_seconds.get("train")),
                gigabytes(record.peak_memory_bytes),
            ]
        )
    costs = ["mean training loss", "steps", "parameters", "training", "memory"]
    words, scores = [setting.word for setting in settings], [moment.title for moment in moments]
    caption = "Accuracy and cost" if moments else "Loss and cost"
    return Table(
        caption, ["run", *words, *scores, *validated, *costs], rows, words=[word for word in words if word in TEXTS]
    )


def _validation(run: StoredRun) -> Cell | str:
    """The validation loss and, where it is a token's, its perplexity."""
    loss = run.record.validation_loss
    if loss is None:
        return NONE
    return Cell(
        f"{loss:.3f}", "" if run.record.recipe.get("kind") == "subject" else f"perplexity {perplexity_text(loss)}"
    )


def _held_out(runs: Sequence[StoredRun]) -> Part | None:
    """The loss and perplexity of each set of held-out samples."""
    rows = [
        [
            Cell(one.task, run.label if len(runs) > 1 else ""),
            one.when,
            Cell(f"{one.loss:.3f}", "" if one.low is None else f"{one.low:.3f} to {one.high:.3f}"),
            perplexity_text(one.loss),
            f"{one.samples:,}",
        ]
        for run in runs
        for one in run.record.losses
    ]
    head = ["samples", "when", "loss per token", "perplexity", "number"]
    return Table("Loss of held-out samples, with its 95 % interval", head, rows, words=["when"]) if rows else None


def _kinds(runs: Sequence[StoredRun]) -> Part | None:
    told = [run for run in runs if not sees_pictures(run)]  # others have their own section for each task
    found = [(run, one) for run in told for one in run.record.evaluations if one.by_kind and one.agreement is None]
    if not found:
        return None
    kinds = sorted({kind for _, one in found for kind in one.by_kind})
    head = ["kind", *(f"{run.label + ', ' if len(runs) > 1 else ''}{one.when}" for run, one in found)]
    scores = [[one.by_kind.get(kind) for _, one in found] for kind in kinds]
    rows = [
        [kind, *(estimate(score.accuracy, score.low, score.high) if score else NONE for score in row)]
        for kind, row in zip(kinds, scores, strict=True)
    ]
    return Fold("By kind of question", [Table("Accuracy by kind of question", head, rows)])


def _accuracy(runs: Sequence[StoredRun], name: str) -> list[Plot]:
    plots = []
    for task in dict.fromkeys(found.task for run in runs for found in run.record.evaluations):
        estimates = []
        for run in runs:
            own = [found for found in run.record.evaluations if found.task == task and found.agreement is None]
            both_ways = len({found.scoring for found in own}) > 1
            for found in own:
                moment = found.when + (", generated" if both_ways and found.scoring == GENERATION else "")
                label = moment if len(runs) == 1 else f"{run.label}, {moment}"
                estimates.append(Accuracy(label, found.accuracy, found.low, found.high))
        look = looks([one.label for one in estimates], baselines=["before"])
        chance = next((chance_of(one) for run in runs for one in run.record.evaluations if one.task == task), None)
        interval = INTERVAL.format(_units(runs))
        plots.append(accuracy_plot(estimates, task=task, looks=look, prefix=name, interval=interval, chance=chance))
    return plots


def _inside(runs: Sequence[StoredRun], name: str) -> list[Part]:
    pictured = {run.label: run.pictures for run in runs if run.pictures and run.pictures.layers}
    if not pictured:
        return []
    plots = [adapter_plots(found, prefix=f"{name}-adapter{number}") for number, found in enumerate(pictured.values())]
    if len(runs) == 1:
        return [medians_table(pictured), Plots(plots[0])]
    folds = [
        Fold(label, [Plots(own)], is_open=not n) for n, (label, own) in enumerate(zip(pictured, plots, strict=True))
    ]
    return [medians_table(pictured), *folds]


def _answers(runs: Sequence[StoredRun]) -> list[Part]:
    """The first run beside each other one; a single run before and after training."""
    first = runs[0]
    tasks, units = [*dict.fromkeys(found.task for found in first.record.evaluations)], _units(runs)
    rows = max(6, ROWS // max(1, len(tasks)))
    parts: list[Part] = []
    for task in tasks:
        if len(runs) == 1:
            pair = first.answers(task, "before"), first.answers(task)
            parts += disagreement(*pair, names=("before", "after"), task=task, rows=rows, units=units)
        for other in runs[1:]:
            scored = zip((first, other), alike([first, other], task), strict=False)
            pair = [run.answers(task, one.when, scoring=one.scoring) for run, one in scored]
            if not pair:
                continue
            found = disagreement(pair[0], pair[1], names=(first.label, other.label), task=task, rows=rows, units=units)
            parts += [Fold(f"{first.label} and {other.label}, {task}", found)] if found else []
    return parts if any(not isinstance(part, Text) for part in parts) else parts[:0]


def _settings(runs: Sequence[StoredRun]) -> list[Part]:
    parts: list[Part] = []
    for run in runs:
        machine = facts_table("Versions and machine", run.record.versions, run.record.machine)
        inner: list[Part] = [settings(f"The recipe of {run.label} as YAML", run.record.recipe)]
        inner += [machine] if machine else []
        parts.append(Fold(f"{run.label}, seed {run.record.seed}", inner))
    return parts
