"""`moslora judge serve`: the pages on which judges compare, and the admin's."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moslora.cli.failures import INTERRUPTED
from moslora.cli.options import remarks, results
from moslora.errors import ConfigError, MissingDependencyError, command

EXAMPLES = (
    "# what moslora generate drew for two adapters",
    "moslora judge serve runs/a/drawn runs/b/drawn --photos photos --judges 15",
    "# any pictures or .txt files under the same names, and a question",
    'moslora judge serve a b --prompts p.csv --question "style: Whose is it?"',
    "# resume after a stop, for judges in the same network",
    "moslora judge serve --study study --host 0.0.0.0",
)
OF_STUDY, OF_SERVER = "A new study", "The server"
DEFAULT_JUDGES = 3
LOCAL, PORT = "127.0.0.1", 8000
BOTH_JUDGES = "give one of --judges NUMBER and --judge NAME"


def serve(
    methods: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD", help="Folders of answers, FOLDER or NAME=FOLDER.", show_default=False),
    ] = None,
    study: Annotated[Path, typer.Option("--study", metavar="FOLDER", help="Where everything is kept.")] = Path("study"),
    photos: Annotated[
        Path | None,
        typer.Option(help="A folder of the subject's photos, or of one a subject.", rich_help_panel=OF_STUDY),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="CSV with name, prompt and perhaps subject.", rich_help_panel=OF_STUDY)
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", metavar="NAME: WORDS", help="May be repeated.", rich_help_panel=OF_STUDY),
    ] = None,
    judges: Annotated[
        int | None, typer.Option(min=1, max=500, help="How many links. Default: 3.", rich_help_panel=OF_STUDY)
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", metavar="NAME", help="A judge by name; may be repeated.", rich_help_panel=OF_STUDY),
    ] = None,
    names: Annotated[
        int | None, typer.Option(min=1, help="Show only so many names, by chance.", rich_help_panel=OF_STUDY)
    ] = None,
    same: Annotated[
        int | None, typer.Option(min=0, help="Checks: one answer on both sides.", rich_help_panel=OF_STUDY)
    ] = None,
    swapped: Annotated[
        int | None, typer.Option(min=0, help="Checks: a pair again, turned round.", rich_help_panel=OF_STUDY)
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.", rich_help_panel=OF_SERVER)] = LOCAL,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any.", rich_help_panel=OF_SERVER)] = PORT,
    url: Annotated[
        str | None, typer.Option(help="What it is reached by from outside.", rich_help_panel=OF_SERVER)
    ] = None,
) -> None:
    """Start a study, or resume the one in --study, and serve it until Ctrl-C."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError('serving needs starlette and uvicorn: pip install "moslora[judge]"') from error
    from moslora.judging.hosting import is_loopback, listen, origins_of
    from moslora.judging.schema import FILE

    new: dict[str, Any] = {"photos": photos, "prompts": prompts, "question": question, "judges": judges}
    given = {"--host": host if host != LOCAL else None, "--port": port if port != PORT else None, "--url": url}
    new |= {"judge": judge, "names": names, "same": same, "swapped": swapped}
    with listen(host, port=port) as listening:
        origins = origins_of(host, port=listening.getsockname()[1], url=url)
        if (study / FILE).is_file():
            _check_same(study, methods or [], new)
        else:
            _begin(study, methods or [], new)
        try:
            _serve(study, listening, origins=origins, is_private=is_loopback(host) and url is None)
        except KeyboardInterrupt:
            server = [part for name, value in given.items() if value is not None for part in (name, str(value))]
            line = command("judge", "serve", "--study", study, *server)
            remarks.print(f"stopped; every answer is kept; to resume: {line}")
            raise typer.Exit(INTERRUPTED) from None


def _begin(study: Path, methods: list[str], new: dict[str, Any]) -> None:
    from moslora.files import check_new_folder
    from moslora.judging.founding import Setup, default_questions, found_study, not_asked, parse_question
    from moslora.judging.material import differing_sizes, read_material
    from moslora.judging.noticing import same_answers

    if not methods:
        raise ConfigError(f"{study} holds no study yet; give two folders of answers, or the folder of a study")
    if new["judges"] and new["judge"]:
        raise ConfigError(BOTH_JUDGES)
    check_new_folder(study)
    judges = new["judge"] or [f"judge {number + 1}" for number in range(new["judges"] or DEFAULT_JUDGES)]
    material = read_material(methods, prompts=new["prompts"], photos=new["photos"], names=new["names"])
    questions = tuple(parse_question(text) for text in new["question"] or ()) or default_questions(material)
    names = "1 name" if len(material.items) == 1 else f"{len(material.items)} names"
    remarks.print(f"{' and '.join(material.methods)}: {names}; writing {study}", style="dim")
    found_study(study, material, setup=Setup(questions, tuple(judges), same=new["same"], swapped=new["swapped"]))
    notes = [*material.unused, *differing_sizes(material), *same_answers(study)]
    for note in notes if new["question"] else [*notes, *not_asked(material)]:
        remarks.print(f"note: {note}", style="yellow")


def _check_same(study: Path, methods: list[str], new: dict[str, Any]) -> None:
    """Whether what is given is what the study was begun with, as after a crash, and nothing else is asked for."""
    from moslora.judging.founding import parse_question
    from moslora.judging.resuming import Wanted, check_same

    if new["judges"] and new["judge"]:
        raise ConfigError(BOTH_JUDGES)
    given: dict[str, Any] = {name: value for name, value in new.items() if name != "question"}
    given["judge"] = new["judge"] or ()
    questions = [parse_question(text) for text in new["question"] or ()]
    check_same(study, Wanted(methods, questions=questions, **given))
    remarks.print(f"resuming {study}", style="dim")


def _serve(folder: Path, listening: Any, *, origins: list[str], is_private: bool) -> None:
    from moslora.judging.hosting import run
    from moslora.judging.server import site
    from moslora.judging.study import Study

    study = Study(folder)
    try:
        if not is_private:
            _warn(origins[0])
        asked = [
            name if name == text else f"{name} ({text})"
            for name, text in zip(study.questions, study.question_texts, strict=True)
        ]
        remarks.print(f"asked about each pair: {'; '.join(asked)}", style="dim")
        results.print(f"admin: {origins[0]}/admin/{study.admin_token}")
        for one in study.judges:
            results.print(f"{one.name}: {origins[0]}/j/{one.token}")
        remarks.print("serving until Ctrl-C", style="dim")
        run(site(study, origins=origins), listening)
    finally:
        study.close()


def _warn(origin: str) -> None:
    is_plain = not origin.startswith("https:")
    plain = " Without https in front, others in the network can read along." if is_plain else ""
    remarks.print(
        f"warning: {origin} is open to everybody who reaches this machine. Each needs one of the links below: send"
        f" every judge their own, and the admin's to nobody.{plain}",
        style="yellow",
    )
