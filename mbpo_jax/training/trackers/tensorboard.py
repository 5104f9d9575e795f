"""TensorBoard events, below `tensorboard/` in the run directory. The only file that knows them."""

from collections.abc import Mapping

from tensorboardX import SummaryWriter

from mbpo_jax.training.trackers.tracker import Session, Tracker


def make_tracker(session: Session) -> Tracker:
    """Write events of each run, and have TensorBoard forget those after the session's beginning.

    What its older files hold of them stays in the files. The figures lie beside them anyway.
    """
    writers: dict[int, SummaryWriter] = {}

    def writer_of(run: int) -> SummaryWriter:
        if run not in writers:
            directory = session.directory / "tensorboard" / f"run_{run}"
            directory.mkdir(parents=True, exist_ok=True)
            # File names hold only whole seconds, so a quick restart would overwrite its forerunner.
            suffix = f".{len(list(directory.iterdir()))}"
            writers[run] = SummaryWriter(
                str(directory), purge_step=session.env_steps + 1, filename_suffix=suffix
            )
        return writers[run]

    def log(run: int, env_steps: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer_of(run).add_scalar(name, value, env_steps)

    def close(_: str) -> None:
        for writer in writers.values():
            writer.close()
        writers.clear()

    return Tracker(log, lambda *_: None, close)
