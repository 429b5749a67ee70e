"""``netsim.validate``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from netsim._util.errors import NetsimError, UnwrittenError, UsageError, or_why_not, shown
from netsim._util.options import as_written, from_options
from netsim._util.storage import check_outputs, made_folder
from netsim.api.calls import check_call
from netsim.distributed.launch import ranks_given, under_launcher
from netsim.experiment.command_options import ValidationOptions
from netsim.experiment.option_docs import takes_options
from netsim.experiment.profile import Profile, load_profile
from netsim.report.progress_bar import progress_bar
from netsim.testbed.campaign import ClusterNetwork, OnProgress, Setting, join, stored_record
from netsim.testbed.campaign import validate as measured
from netsim.testbed.campaign_plan import cells_of, idle_options, network_of, settings_of
from netsim.testbed.validation import Validation, conclude


@takes_options("Validation")
def validate(
    *,
    out: str | Path | None = None,
    on_progress: OnProgress = lambda what, done_s, total_s: None,
    progress: bool | None = None,
    **options: Any,
) -> Validation:
    """Run exchanges and training over a real network, and compare their times with netsim's predictions.

    The network is a shaped cluster that `local` builds on this machine or, under torchrun, the network of its job.

    Parameters
    ----------
    out
        Folder for scatter plot, CSV, JSON and measurements; stored settings are not measured again.
    on_progress
        Called with the measurement in words, the estimated seconds of finished measurements, and those of all.
    progress
        Whether to show a progress bar; None for a bar in notebooks only.
    **options
        The options of ``netsim validate``, with underscores: ``local=[4, 8]``, ``bandwidth="100Mbps"``.

    Returns
    -------
    Validation
        One row per prediction, and the conclusion; empty on ranks other than 0 of torchrun's job.

    Raises
    ------
    UsageError
        For a value that cannot be used.
    InfeasibleError
        If this machine cannot build a shaped cluster; ``netsim doctor`` says why.
    UnwrittenError
        If a file could not be written; its attribute ``report`` holds the validation.

    Examples
    --------
    >>> import netsim
    >>> validation = netsim.validate(local=4, sizes="100KB", algorithm="none")  # doctest: +SKIP
    >>> print(validation)  # doctest: +SKIP
    """
    check_call("netsim.validate")
    if not callable(on_progress):
        raise UsageError(f"on_progress {shown(on_progress)} must be a function of a text and two numbers")
    asked = AskedValidation.of(options, out)
    with progress_bar(progress, "measuring") as show:

        def told(what: str, done_s: float, total_s: float) -> None:
            on_progress(what, done_s, total_s)
            show(round(done_s), max(1, round(total_s)))

        validation = asked.carry_out(told)
    if asked.out is not None and validation.comparison:
        try:
            validation.write(asked.out)
        except NetsimError as error:
            raise UnwrittenError(str(error), validation) from error
    return validation


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedValidation:
    """A validation with its options, checked: what the command line and Python carry out alike.

    It has either `settings`, which are shaped clusters, or the `network` of torchrun's job.
    """

    options: ValidationOptions
    profile: Profile | None
    settings: list[Setting]
    network: ClusterNetwork | None
    out: Path | None

    @classmethod
    def of(cls, options: dict[str, Any], out: str | Path | None) -> AskedValidation:
        """Return the validation of these options; raise UsageError for one that cannot be used."""
        read = from_options(ValidationOptions, options)
        profile = None if read.profile is None else load_profile(read.profile)
        network = network_of(read, profile) if under_launcher() else None
        settings = settings_of(read) if network is None else []
        folder = None if out is None else made_folder("out", Path(out))
        if folder is not None:
            made_folder("out", folder / "points")
            files = {f"out {ending}": folder / f"validation.{ending}" for ending in ("json", "csv", "svg")}
            check_outputs(files, {"profile": read.profile})
        return cls(options=read, profile=profile, settings=settings, network=network, out=folder)

    @property
    def records(self) -> Path | None:
        """The folder of stored measurements; None if they are not stored."""
        return None if self.out is None else self.out / "points"

    def unmeasured(self) -> list[Setting]:
        """Return the settings without stored measurements."""
        return [setting for setting in self.settings if stored_record(setting.file(self.records)) is None]

    def notes(self) -> list[str]:
        """Return sentences on options without effect, on defaults, and on values that replace others."""
        options = self.options
        notes = idle_options(options, joined=self.network is not None)
        if self.profile is not None:
            notes.append(
                f"Predicted with the profile {options.profile}, not with messages measured beside the exchanges."
            )
        if options.bandwidth_bps is None and self.network is None:
            notes.append("The bandwidth is the default, 100 Mbit/s.")
        return notes

    def carry_out(self, on_progress: OnProgress) -> Validation:
        """Measure, predict and conclude."""
        options = self.options
        if self.network is not None:
            cells = cells_of(options, ranks_given())
            validation = join(cells, self.network, options.backend, options.timeout_s, options.tolerance)
        else:
            validation = measured(self.settings, options.tolerance, on_progress, self.records, self.profile)
        if not validation.comparison:
            return validation
        conclusion = or_why_not("conclusion", lambda: conclude(validation.comparison, options.tolerance))
        return replace(validation, config=as_written(options), conclusion=conclusion, notes=self.notes())
