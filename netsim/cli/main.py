"""The command line. Results go to stdout, all else to stderr; :func:`main` lists the exit codes.

Signal handlers are installed before all other imports, so that an interrupt during an import prints no traceback.
"""

from __future__ import annotations

import gc

from netsim._util.interrupts import Interrupts, ended_politely

INTERRUPTED = 130
BY_SIGNAL = 128


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, with the process's own arguments unless others are given, and return its exit status.

    0 ok, 1 runtime, 2 usage, 3 infeasible, 4 validation failed; 128 and the signal's number where one ended it: 130
    for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
    """
    with ended_politely(last=arguments is None) as interrupts:
        try:
            code, message = _outcome(arguments)
        except BaseException:
            if not interrupts.came:
                raise
            code, message = INTERRUPTED, ""  # libraries turn a KeyboardInterrupt into other errors
        if code == INTERRUPTED or (code and interrupts.came):
            code, message = _interrupted(interrupts, message if code == INTERRUPTED else "")
        if message:
            import sys

            print(f"netsim: {message}", file=sys.stderr)  # noqa: T201
        if arguments is None:
            gc.freeze()  # the process ends here: looking for garbage among all modules would take half a second
    return code


def _interrupted(interrupts: Interrupts, message: str) -> tuple[int, str]:
    """Return the exit status and the message of an interrupted run."""
    import signal

    number = signal.Signals(interrupts.came[0]) if interrupts.came else signal.SIGINT
    by = "" if number == signal.SIGINT else f" by {number.name}"
    return BY_SIGNAL + number, message.replace("interrupted", f"interrupted{by}", 1) or f"interrupted{by}"


def _outcome(arguments: list[str] | None) -> tuple[int, str]:
    """Return the exit status and the message of an error."""
    import sys

    from netsim._util.errors import InfeasibleError, NetsimError, reason_of
    from netsim._util.standard_streams import give_up, prepare
    from netsim._util.system import NEW_OBJECTS

    try:
        prepare()
        if arguments is None:
            gc.set_threshold(NEW_OBJECTS)  # imports make many objects, which stay
        _check_packages()
        from netsim.cli.app import answer

        return answer(arguments), ""
    except NetsimError as error:
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        return INTERRUPTED, "interrupted"
    except MemoryError:
        fix = "take fewer workers, elements or rounds"
        return InfeasibleError.exit_code, f"more memory was asked for than there is; {fix}"
    except BrokenPipeError:
        give_up(sys.stdout)
        return 0, ""
    except OSError as error:
        if error.filename is None:
            give_up(sys.stdout)
        what = "the output could not be written" if error.filename is None else repr(str(error.filename))
        import errno

        if error.errno in (errno.EMFILE, errno.ENFILE):
            return 1, f"more files were needed at once than may be open ({reason_of(error)}); raise ulimit -n"
        return 1, f"{what}: {reason_of(error)}"


def _check_packages() -> None:
    """Notice when another distribution owns a package of ours: all four must lie side by side."""
    from importlib.util import find_spec
    from pathlib import Path

    from netsim._util.errors import NetsimError

    home = Path(__file__).parents[2]
    for package in ("algorithms", "topologies", "studies"):
        spec = find_spec(package)
        where = Path(spec.origin).parent.parent if spec is not None and spec.origin else None
        if where != home:
            raise NetsimError(
                f"package {package!r} comes from {where}, not from netsim's own {home}: another distribution or folder "
                "of that name hides it; use a fresh virtual environment"
            )
