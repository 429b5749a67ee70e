"""Run the code blocks of README and docs, in 80 columns, and write what their commands print today.

``python .ci/examples.py README.md docs/gpus.md`` runs every block of the pages, from the first to the last, in one
empty folder per page, and writes the outputs of commands anew. ``--check`` writes nothing; the exit status says whether
every block ran and every output is current. ``--only 'netsim simulate'`` runs only blocks of output whose command
begins so.

A block of ``sh`` is a script, a block of ``python`` a program of its own. A block of ``text`` that begins with ``$``
has commands with their outputs. A command that does not exit with 0 also shows what it prints on stderr. Outputs that
have MEASURED times differ from run to run: ``--check`` only runs their commands. A block that ends with … leaves out
the known errors. ``$ cat FILE`` of a file that no block has made makes the file.

A comment in the line before a block says what else is to be done with it:

``<!-- file: mine.py -->``
    The block is the file, which later blocks use.
``<!-- not run: needs SLURM -->``
    The block cannot run here, for this reason.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

COLUMNS = 80
CUT, LEFT_OUT = "How wrong netsim was", "…\n"
BLOCK = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```(sh|python|toml|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMPT = re.compile(r"^\$ ", re.MULTILINE)


class Page:
    """The blocks of one page, which share a folder.

    Parameters
    ----------
    path : pathlib.Path
        The page in Markdown.
    only : str
        The begin of the commands to run; empty for all blocks.
    """

    def __init__(self, path: Path, only: str = "") -> None:
        self.path, self.only = path, only
        self.run = 0
        self.not_run: list[str] = []
        self.failures: list[str] = []
        self.environment = os.environ | {
            "COLUMNS": str(COLUMNS),
            "MPLBACKEND": "agg",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }

    def renewed(self, check: bool) -> str:
        """Run the blocks, and return the page with the outputs of today."""
        text = self.path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            return BLOCK.sub(lambda block: self._block(block, text.count("\n", 0, block.start(3)), folder, check), text)

    def _block(self, block: re.Match[str], line: int, folder: str, check: bool) -> str:
        comment, language, body = block.groups()
        kind, _, said = (comment or "").partition(": ")
        shown = language == "text"
        if kind == "not run":
            self.not_run.append(f"{self.path}:{line}: {said}")
        elif kind == "file":
            (Path(folder) / said).write_text(body, encoding="utf-8")
        elif shown and PROMPT.match(body) and body.startswith(f"$ {self.only}"):
            self.run += 1
            return block[0].replace(body, "".join(self._outputs(body, line, folder, check)))
        elif not shown and language != "toml" and not self.only:
            self.run += 1
            program = ["bash", "-euc", body] if language == "sh" else [sys.executable, "-c", body]
            ran = self._ran(program, folder)
            if ran.returncode:
                self.failures.append(f"{self.path}:{line}: exit status {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return block[0]

    def _outputs(self, body: str, line: int, folder: str, check: bool) -> Iterator[str]:
        """Yield the commands of a block, each with its output."""
        for part in PROMPT.split(body)[1:]:
            command, printed = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
            made = re.fullmatch(r"cat (\S+)\n", command)
            if made and not (file := Path(folder) / made[1]).exists():
                file.write_text(printed, encoding="utf-8")
                yield f"$ {part}"
                continue
            ran = self._ran(["bash", "-uc", command], folder)
            out = ran.stdout + (ran.stderr if ran.returncode else "")
            if printed.endswith(LEFT_OUT):
                out = out.partition(CUT)[0] + LEFT_OUT
            if ran.returncode and "netsim: " not in printed:
                self.failures.append(f"{self.path}:{line}: {command}exit status {ran.returncode}\n{out}")
                out = printed
            elif not printed or (check and "MEASURED" in printed):
                out = printed
            elif out != printed:
                self.failures += [f"{self.path}:{line}: {command}does not print this any more"] if check else []
                print(f"{self.path}:{line}: {command.strip()}: changed")
            yield f"$ {command}{out}"

    def _ran(self, program: list[str], folder: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(program, cwd=folder, env=self.environment, capture_output=True, text=True, check=False)


def main() -> None:
    """Run the blocks of the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--only", default="", help="Only commands that begin with this text.")
    parser.add_argument("--check", action="store_true", help="Write nothing.")
    given = parser.parse_args()
    pages = [Page(path, given.only) for path in given.files]
    for page in pages:
        before = page.path.read_text(encoding="utf-8")
        if (now := page.renewed(given.check)) != before and not given.check:
            page.path.write_text(now, encoding="utf-8")
    not_run = [each for page in pages for each in page.not_run]
    print(f"{sum(page.run for page in pages)} blocks were run, {len(not_run)} cannot be run here")
    print(*not_run, sep="\n", end="\n" if not_run else "")
    if failures := [each for page in pages for each in page.failures]:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
