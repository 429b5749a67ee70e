"""``netsim.study``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim._util.errors import UsageError
from netsim._util.options import declared, from_options
from netsim._util.progress import OnPoint, ignore_points
from netsim._util.storage import check_folder
from netsim._util.units import in_python
from netsim.api.calls import check_call, shown_points
from netsim.experiment.command_options import StudyOptions
from netsim.experiment.option_docs import takes_options

if TYPE_CHECKING:
    from netsim.study_engine import Plan, Ran, RanShard, Settings, Shard, Study

logger = logging.getLogger(__name__)


@takes_options("Study")
def study(
    name: str | Path,
    out: str | Path | None = None,
    *,
    nccl_tests: str | Path | None = None,
    on_point: OnPoint = ignore_points,
    progress: bool | None = None,
    **settings: Any,
) -> Ran | RanShard | Plan:
    """Simulate many combinations of settings, and write one conclusion as a report and as JSON.

    Parameters
    ----------
    name
        The name of a study, such as "scaling", or the path of a TOML file of a study.
    out
        Folder for the report, the conclusion and the points; None with ``dry_run`` only.
    nccl_tests
        File for the simulated exchanges in the columns of nccl-tests.
    on_point
        Called with the number of finished points and the number of all points so far.
    progress
        Whether to show a progress bar; None for a bar in notebooks only.
    **settings
        The options below, and settings of the study, such as ``workers=[2, 4, 8]``, which are those of ``--set``.

    Returns
    -------
    Ran, RanShard or Plan
        The conclusion in sentences, the same as data, and the files that were written. With ``shard`` the number of
        stored points, and with ``dry_run`` the points of the study. ``print(...)`` shows what ``netsim study`` prints.

    Raises
    ------
    UsageError
        For an unknown study or setting, or a folder that cannot be written.
    InfeasibleError
        If data are missing, or a point needs more memory or time than is allowed.
    NetsimError
        If a point fails; the error names the point.

    Examples
    --------
    >>> import netsim
    >>> ran = netsim.study("scaling", "results", quick=True)  # doctest: +SKIP
    >>> print(ran)  # doctest: +SKIP
    """
    check_call("netsim.study", on_point=on_point)
    options = {key: settings.pop(key) for key in [each.name for each in _OPTIONS.values()] if key in settings}
    given = {key: in_python(value) for key, value in settings.items()}
    asked = AskedStudy.of(name, out, nccl_tests, options, given)
    arguments = {key: value for key, value in (options | given).items() if key not in ("resume", "jobs", "cluster")}
    words = "".join(f", {key}={value!r}" for key, value in arguments.items())
    with shown_points(on_point, progress) as told:
        return asked.carry_out(f'netsim.study("{name}", "DIR"{words})', told)


_OPTIONS = declared(StudyOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedStudy:
    """A study with its settings and options, checked: what the command line and Python carry out alike."""

    study: Study[Any]
    settings: Settings
    out: Path
    options: StudyOptions
    shard: Shard | None
    nccl_tests: Path | None

    @classmethod
    def of(
        cls,
        name: str | Path,
        out: str | Path | None,
        nccl_tests: str | Path | None,
        options: Mapping[str, Any],
        settings: Mapping[str, Any],
        sets: Iterable[str] = (),
    ) -> AskedStudy:
        """Return the study of a name or TOML file; raise UsageError for an option or setting that cannot be used.

        `settings` replace those of the file, and `sets`, texts such as ``workers=2,4``, replace both.
        """
        from netsim.study_engine.environment import read_from_folder
        from netsim.study_engine.settings import read_study_file, settings_of
        from netsim.study_engine.shards import read_shard
        from studies import STUDIES, load_study

        read = from_options(StudyOptions, options)
        table = None if nccl_tests is None else Path(nccl_tests)
        shard = None if read.shard is None else read_shard(read.shard)
        if shard is not None:
            _check_alone(shard, read, table)
        study_name, of_file = str(name), dict[str, Any]()
        is_file = os.path.isfile(study_name)  # noqa: PTH113  # False, without an error, for any name
        if study_name not in STUDIES and (study_name.endswith(".toml") or is_file):
            study_name, more = read_study_file(Path(name), STUDIES)
            of_file |= more
        loaded = load_study(study_name)
        chosen = settings_of(loaded, quick=read.quick, given=of_file | dict(settings), sets=sets)
        if read.data_dir is not None and not read_from_folder(loaded.points(chosen)):
            why = "no point of this study trains on a data set of a folder"
            logger.warning("netsim: --data-dir %s changed nothing: %s", read.data_dir, why)
        if out is None and not read.dry_run:
            raise UsageError("out is missing: name the folder for the results, such as --out results")
        if out is not None:
            check_folder("out", Path(out))
        folder = Path() if out is None else Path(out)
        return cls(study=loaded, settings=chosen, out=folder, options=read, shard=shard, nccl_tests=table)

    def plan(self) -> Plan:
        """Return the points that would be simulated, and how many of them are stored already."""
        from netsim.study_engine import plan_study

        options = self.options
        return plan_study(
            self.study,
            self.settings,
            self.out,
            shard=self.shard,
            cluster=options.cluster,
            data_dir=options.data_dir,
        )

    def carry_out(self, command: str, on_point: OnPoint) -> Ran | RanShard | Plan:
        """Plan, simulate a shard, or simulate all points and write the report, which quotes `command`."""
        from netsim.study_engine import run_shard, run_study

        options = self.options
        if options.dry_run:
            return self.plan()
        how: dict[str, Any] = {"jobs": options.jobs, "data_dir": options.data_dir, "on_point": on_point}
        if self.shard is not None:
            return run_shard(self.study, self.settings, self.out, self.shard, **how)
        return run_study(
            self.study,
            self.settings,
            self.out,
            command=command,
            cluster=options.cluster,
            resume=options.resume,
            validation=None if options.validation is None else Path(options.validation),
            nccl_tests=self.nccl_tests,
            **how,
        )


def _check_alone(shard: Shard, options: StudyOptions, nccl_tests: Path | None) -> None:
    """Raise UsageError for options that a shard cannot have."""
    if options.cluster is not None:
        raise UsageError(f"shard {shard} and cluster exclude each other: a Dask cluster divides the points itself")
    for name, value in {"validation": options.validation, "nccl-tests": nccl_tests}.items():
        if value is not None:
            raise UsageError(
                f"{name} {str(value)!r} is for a report, and shard {shard} writes none; give it with --resume, without "
                "--shard"
            )
