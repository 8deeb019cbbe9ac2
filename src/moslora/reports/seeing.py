"""What a run answers about pictures, task by task: by kind beside its controls, examples, and what it mixes up."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from moslora.evaluation.recording import answer_count, scored_text
from moslora.records import ArmResult, ComparisonRecord, EvaluationRecord, Majority, Score, Scored
from moslora.reports.accuracy import Accuracy, slug
from moslora.reports.confusion import confusion
from moslora.reports.drawing import Look, looks
from moslora.reports.parts import Cell, Chapter, Examples, Fold, Part, Points, Table
from moslora.reports.radar import radar
from moslora.reports.reading import StoredRun
from moslora.reports.wording import NONE, estimate, kind_name, percent

TRAINED = ("after", "evaluated")  # by preference
MOMENTS = {"before": "before training", "after": "after training", "evaluated": "evaluated again"}
MAJORITY = "always the commonest answer"
INTRO = (
    "Accuracy in percent, 95 % interval below. A model that looks at the picture is above the commonest answer of each"
    " kind and above what it gets with a grey picture."
)


def sees_pictures(run: StoredRun) -> bool:
    """Whether the run is of a model that answers about pictures."""
    return run.record.recipe.get("kind") == "vision_language"


def add_tasks(chapter: Chapter, runs: Sequence[StoredRun]) -> None:
    """A section for each task of the runs that answer about pictures."""
    runs = [run for run in runs if sees_pictures(run)]
    for task in dict.fromkeys(found.task for run in runs for found in run.record.evaluations):
        name, own = f"task-{slug(task)}", [run for run in runs if trained(run, task)]
        prefix = f"{chapter.name}-{name}"
        parts = _of_one(own[0], task, prefix) if len(own) == 1 else _of_several(own, task, prefix)
        chapter.add(name, f"{task}: what is answered", *parts, intro=INTRO)


def add_kinds(chapter: Chapter, arms: Mapping[str, Mapping[str, StoredRun]], *, looks: Mapping[str, Look]) -> None:
    """A section with the arms of a comparison over each other, for each task about pictures with several kinds."""
    told = {arm: [run for run in seeds.values() if sees_pictures(run)] for arm, seeds in arms.items()}
    parts: list[Part] = []
    for task in dict.fromkeys(one.task for runs in told.values() for run in runs for one in run.record.evaluations):
        found = {arm: _mean_by_kind([one for run in runs if (one := trained(run, task))]) for arm, runs in told.items()}
        found = {arm: kinds for arm, kinds in found.items() if kinds}
        parts += radar(found, task=task, looks=looks, prefix=chapter.name, below="lowest and highest seed")
    chapter.add("kinds", "By kind of question", *parts)


def controls_table(record: ComparisonRecord) -> Table | None:
    """Each arm's accuracy beside what it keeps with something taken away; None where that was not asked."""
    taken = [*dict.fromkeys(name for arm in record.arms for name in arm.controls)]
    if not taken:
        return None
    tasks = [task for task in record.tasks if any(task in own for arm in record.arms for own in arm.controls.values())]
    head = [f"{task}{'' if name is None else f', {name}'}" for task in tasks for name in (None, *taken)]
    rows = [[arm.arm, *(_kept(arm, task, name) for task in tasks for name in (None, *taken))] for arm in record.arms]
    return Table("Accuracy in percent, and what is left of it when something is taken away", ["arm", *head], rows)


def _kept(arm: ArmResult, task: str, name: str | None) -> Cell | str:
    if name is not None:
        return percent(arm.controls.get(name, {}).get(task))
    found = arm.tasks.get(task)
    return estimate(found.mean, found.low, found.high) if found else NONE


def trained(run: StoredRun, task: str) -> EvaluationRecord | None:
    """The task's evaluation after training."""
    return next((found for when in TRAINED if (found := run.evaluation(task, when))), None)


def by_kind(found: EvaluationRecord) -> dict[str, Accuracy]:
    """The accuracy of each kind of question, with its interval."""
    return {kind: Accuracy(kind, one.accuracy, one.low, one.high) for kind, one in found.by_kind.items()}


def _mean_by_kind(found: Sequence[EvaluationRecord]) -> dict[str, Accuracy]:
    """The mean over seeds of each kind's accuracy, with the lowest and the highest where there are several."""
    values = {kind: [one.by_kind[kind].accuracy for one in found if kind in one.by_kind] for kind in _kinds(found)}
    ends = {kind: (min(own), max(own)) if len(own) > 1 else (None, None) for kind, own in values.items()}
    return {kind: Accuracy(kind, fmean(own), *ends[kind], own) for kind, own in values.items()}


def _kinds(found: Sequence[EvaluationRecord]) -> list[str]:
    return sorted({kind for one in found for kind in one.by_kind})


def _of_several(runs: Sequence[StoredRun], task: str, prefix: str) -> list[Part]:
    """The runs over each other, and each alone to open."""
    found = {run.label: by_kind(one) for run in runs if (one := trained(run, task))}
    over = radar(found, task=task, looks=looks([*found]), prefix=prefix)
    alone = [Fold(run.label, _of_one(run, task, f"{prefix}-{number}")) for number, run in enumerate(runs, start=1)]
    return [*over, *alone]


def _of_one(run: StoredRun, task: str, prefix: str) -> list[Part]:
    found = trained(run, task)
    if found is None:
        return []
    moments = [one for one in run.record.evaluations if one.task == task and one.agreement is None]
    parts: list[Part] = [_table(moments, found), Points(_reading(moments))]
    examples = run.examples(task)
    if examples is not None and examples.examples:
        moment = MOMENTS.get(examples.when, examples.when)
        parts.append(Examples(f"{len(examples.examples)} of the questions, {moment}", examples.examples))
    series = {MOMENTS.get(one.when, one.when): by_kind(one) for one in moments}
    drawn = radar(series, task=task, looks=looks([*series], baselines=[MOMENTS["before"]]), prefix=prefix)
    parts += [part for part in drawn if not isinstance(part, Table)]
    mixed = confusion(run.answers(task, found.when), task=task)
    return [*parts, *([Fold("Which answers are mixed up", [mixed], is_open=True)] if mixed else [])]


def _table(moments: Sequence[EvaluationRecord], found: EvaluationRecord) -> Table:
    """The kinds of question, and all of them, at every moment, beside the commonest answer."""
    own = [one for one in moments if one.when in MOMENTS]
    controls = [one for one in moments if one.when not in MOMENTS]
    head = ["kind", *(MOMENTS[one.when] for one in own), *([MAJORITY] if found.majority else [])]
    rows = [
        [
            Cell(kind_name(kind), _counted(score, found)),
            *(_score(one.by_kind.get(kind)) for one in own),
            *([_always(found.majority_by_kind.get(kind))] if found.majority else []),
            *(_score(one.by_kind.get(kind)) for one in controls),
        ]
        for kind, score in sorted(found.by_kind.items())
    ]
    whole = [*map(_score, own), *([_always(found.majority)] if found.majority else []), *map(_score, controls)]
    rows.append([Cell("all", _counted(found, found)), *whole])
    caption = f"{found.task}: accuracy by kind of question, beside what needs no look at the picture"
    return Table(caption, [*head, *(one.when for one in controls)], rows)


def _counted(score: Score, found: EvaluationRecord) -> str:
    """Of how many questions an accuracy is, or of units, where one holds several answers."""
    word = "unit" if answer_count(found) != found.total else "question"
    return f"{score.total:,} {word}{'s' if score.total != 1 else ''}"


def _score(score: Score | None) -> Cell | str:
    return estimate(score.accuracy, score.low, score.high) if score else NONE


def _always(score: Majority | None) -> Cell | str:
    """What the commonest answer gets, and which it is."""
    if score is None:
        return NONE
    shown = estimate(score.accuracy, score.low, score.high)
    return Cell(shown.text, f"{score.answer}: {shown.remark}" if score.answer else shown.remark)


def _rule(scored: Scored) -> str:
    """The rule's name, and of what the accuracy is the mean where that is not one answer each, right or wrong."""
    if scored.is_counted and scored.units == scored.answers:
        return f"Rule for reading the answers: {scored.rule}."
    told = scored_text(scored)
    return f"{told[:1].upper()}{told[1:]}."


def _reading(moments: Sequence[EvaluationRecord]) -> list[str]:
    """By which rule the answers were read, and in how many it found nothing."""
    lines = [*dict.fromkeys(_rule(one.scored) for one in moments if one.scored)]
    shares = [
        f"{MOMENTS.get(one.when, one.when)} {percent(one.unread / answer_count(one))} %"
        f" ({one.unread:,} of {answer_count(one):,})"
        for one in moments
        if one.unread is not None
    ]
    return [*lines, *([f"No answer could be read, which counts as wrong: {', '.join(shares)}."] if shares else [])]
