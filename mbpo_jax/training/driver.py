"""The host: compiles, calls, logs, checkpoints and handles signals."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from mbpo_jax.console import say, seconds_of
from mbpo_jax.errors import UserError
from mbpo_jax.exit_codes import Outcome
from mbpo_jax.files import Row
from mbpo_jax.training import checkpoint, devices, logs, plan, playback, run_directory, tracking
from mbpo_jax.training.beginning import BEST, Beginning, has_its_rows, restore_runs, spread
from mbpo_jax.training.compiled import Compiled, better_of, compile_program
from mbpo_jax.training.figures import draw_figures
from mbpo_jax.training.group import Group
from mbpo_jax.training.host_state import HostState, closing_line, evaluation_rows, metric_rows
from mbpo_jax.training.interruption import Interruption
from mbpo_jax.training.layout import Setup, set_up
from mbpo_jax.training.logs import RunLog
from mbpo_jax.training.progress import Progress
from mbpo_jax.training.state import TrainState, learned
from mbpo_jax.training.trackers import tracker
from mbpo_jax.training.trackers.facts import facts_of
from mbpo_jax.training.trackers.follower import Trackers
from mbpo_jax.types import Env, PyTree


class Training:
    """The runs of one group in one directory, in one process."""

    def __init__(
        self,
        setup: Setup,
        began: float,
        restored: checkpoint.Restored | None,
        compiled: Compiled,
        run_dir: Path,
        log: RunLog,
        progress: Progress,
        begin: Mapping[str, PyTree],
        on_evaluation: Callable[[list[Row]], None] | None = None,
        figure_format: Collection[str] = (),
    ) -> None:
        self._compiled, self._run_dir, self._log, self._progress = compiled, run_dir, log, progress
        self._on_evaluation, self._figure_format = on_evaluation, figure_format
        self._env, self._group = setup.env, setup.group
        self._config = config = setup.group.config
        self._began = began
        self._updates = plan.planned_updates(setup)
        self.host = HostState(**restored.host) if restored else HostState(config.random_steps)
        self._seconds_before = self.host.wall_seconds
        self._best = restored.aside.get(BEST) if restored else None
        if self._best is None:  # or it comes from a checkpoint of an earlier version
            self.host.best = []
        self._state: TrainState = restored.state if restored else compiled.start(self._random)
        spent = sum(compiled.seconds.values())
        when = f"; {compiled.when}" if compiled.when else ""
        progress.print(f"compiled in {seconds_of(spent)}{when}")
        if not self.host.nonfinite:  # or it comes from a checkpoint of an earlier version
            self.host.nonfinite = [0] * len(self._group.runs)
        self._is_new = not restored
        if not restored:
            self._state = self._state._replace(**begin)
            made = min(config.random_steps, config.replay_rows)
            self._count_nonfinite(made - np.asarray(self._state.replay.size))

    def _random(self, done: int) -> None:
        """Show how many of the random steps are made."""
        self._progress.count("random steps", done, self._config.random_steps)

    def run(self) -> Outcome:
        """Train until the end or an interruption, and say which it was."""
        # In this order: who is stopped between the two goes on to another end once more.
        self._write_status("running")
        run_directory.write_group(self._run_dir, self._group)
        if self._is_new:
            self._evaluate_untrained()
        with Interruption() as interruption:  # before, there was nothing to be saved
            while not self._is_over():
                if interruption.requested:
                    return self._interrupted()
                if self._lags():
                    self._catch_up()
                else:
                    self._advance()
            self._save()
            return self._finish()

    def _is_solved(self) -> bool:
        """Return whether every run reached `stop_at_return` in the last evaluation."""
        target, rows = self._config.stop_at_return, self.host.evaluation
        return target is not None and all(row["return_mean"] >= target for row in rows)

    def _is_over(self) -> bool:
        """Return whether all steps are done, the runs are solved, or every run diverged."""
        host = self.host
        return (
            host.env_steps >= self._config.total_env_steps
            or (host.was_solved() and self._is_solved())
            or len(host.diverged()) == self._config.num_seeds
        )

    def _is_due(self, every: int) -> bool:
        """Return whether something that happens every so many steps happens now."""
        return (self.host.env_steps - self._config.random_steps) % every == 0

    def _lags(self) -> bool:
        """Return whether there are updates of the random steps that are still to be made."""
        host = self.host
        calls = self._updates.calls_to_catch_up
        return host.env_steps == self._config.random_steps and host.caught_up < calls

    def _catch_up(self) -> None:
        """Make a part of the updates that belong to the random steps."""
        host, updates = self.host, self._updates
        done, make = host.caught_up, self._compiled.catch_up()
        total = updates.calls_to_catch_up * updates.of_steps
        self._progress.count("catching up", done * updates.of_steps, total, "updates")
        self._state, model_steps = make(done, self._state)
        host.caught_up += 1
        of_fit = 0 if done else updates.per_fit
        of_model = float(np.mean(model_steps[: len(self._group.runs)]))
        self._count(of_fit + updates.of_steps + of_model)
        self._progress.update(host.env_steps, round(host.gradient_steps))

    def _count(self, gradient_steps: float) -> None:
        """Count the gradient steps of a call, of agent and model, and the time."""
        self.host.gradient_steps += gradient_steps
        self._count_time()

    def _count_time(self) -> None:
        self.host.wall_seconds = self._seconds_before + time.monotonic() - self._began

    def _advance(self) -> None:
        """Make one call of the compiled step, and look at what came out."""
        config, host = self._config, self.host
        self._progress.phase("training")
        self._state, metrics = self._compiled.step(host.env_steps, self._state)
        host.env_steps += config.steps_per_fit
        rows = metric_rows(self._group.seeds, host.env_steps, metrics)
        of_model = float(np.mean([row.get("model/gradient_steps", 0.0) for row in rows]))
        self._count(self._updates.per_fit + self._updates.of_steps + of_model)
        self._log.write_metrics(rows)
        # What a policy that became non-finite does to the simulator is its own fault.
        self._count_nonfinite([row["train/nonfinite"] * row["train/healthy"] for row in rows])
        due = self._is_due(config.eval_every) or host.env_steps >= config.total_env_steps
        self._progress.update(
            host.env_steps, round(host.gradient_steps), self._evaluate() if due else None
        )
        if due:
            self._tell(rows)
        if self._compiled.measure and self._is_due(config.eval_every * config.track_gradients):
            found = self._compiled.measure(host.env_steps, self._state)
            rows = tracking.rows_of(config, host.env_steps, self._group.seeds, found)
            self._log.write_gradients(rows)
        if self._is_due(config.checkpoint_every):
            self._save()

    def _count_nonfinite(self, found: Iterable[float]) -> None:
        """Add to each run's transitions that were left out, and warn of its first ones."""
        host, seeds = self.host, self._group.seeds
        for run, (seed, number) in enumerate(zip(seeds, found, strict=False)):
            if number and not host.nonfinite[run]:
                self._progress.print(
                    f"warning: {number:,.0f} transitions of run {run} (seed {seed}) were not "
                    f"finite before {host.env_steps:,} steps; they are left out, and their "
                    "episodes ended there. If there are many the simulator blows up: try smaller "
                    "actions or a smaller time step, and look at what the environment returns"
                )
            host.nonfinite[run] += int(number)

    def _evaluate_untrained(self) -> None:
        """Make the evaluation at which curves begin, at 0 steps: of what nothing was learned yet.

        What acts is the same before and after the random steps.
        """
        host, random_steps = self.host, self.host.env_steps
        host.env_steps = 0
        self._count_time()
        self._progress.phase("evaluating before training")
        self._progress.update(0, 0, self._evaluate())
        host.env_steps, host.solved = random_steps, 0
        # Neither compiling nor the random steps are to count in the rates of training.
        self._progress.phase("training")
        self._tell([{}] * len(host.evaluation))

    def _tell(self, metrics: Sequence[Row]) -> None:
        """Tell of an evaluation whoever asked for it, with the newest metrics of each run."""
        if self._on_evaluation is None:
            return
        pairs = zip(metrics, self.host.evaluation, strict=True)
        try:
            self._on_evaluation([own | evaluation for own, evaluation in pairs])
        except BaseException:
            self._save()
            self._write_status("interrupted")
            raise

    def _evaluate(self) -> float:
        """Evaluate all runs and return their mean return."""
        host = self.host
        known = set(host.diverged())
        returns, lengths = self._compiled.evaluate(host.env_steps, self._state)
        host.evaluation = evaluation_rows(
            self._group.seeds, host, returns, lengths, self._state.healthy
        )
        self._log.write_evals(host.evaluation)
        means = [row["return_mean"] for row in host.evaluation]
        self._keep_best()
        host.solved = host.solved + 1 if self._is_solved() else 0
        for run in set(host.diverged()) - known:
            self._progress.print(
                f"warning: run {run} (seed {self._group.seeds[run]}) became non-finite before "
                f"{host.env_steps:,} steps and is frozen at its last finite parameters"
            )
        return float(np.mean(means))

    def _keep_best(self) -> None:
        """Keep what each run has learned, if it was never evaluated better."""
        better = self.host.keep_best()
        now = learned(self._state)
        copies = self._state.healthy.shape[0] - len(better)
        rows = np.array(better + better[-1:] * copies)
        # A copy even of the first, as the state's own arrays are given away at the next step.
        self._best = better_of(rows, now, now if self._best is None else self._best)

    def _save(self) -> None:
        self.host.log = self._log.position()
        checkpoint.save(
            self._run_dir / run_directory.CHECKPOINTS,
            self.host.env_steps,
            self._state,
            dataclasses.asdict(self.host),
            len(self._group.runs),
            {} if self._best is None else {BEST: self._best},
        )
        self._write_status("running")
        try:
            draw_figures(self._config, self._run_dir, self._figure_format)
        except Exception as problem:  # whatever it is, it must not end hours of training
            self._progress.print(f"warning: the figures are not up to date: {problem}")

    def _interrupted(self) -> Outcome:
        # The random steps alone are not worth keeping.
        worth = self.host.caught_up > 0 or self.host.env_steps > self._config.random_steps
        if worth:
            self._save()
        self._write_status("interrupted")
        self._progress.print(
            f"interrupted at {self.host.env_steps:,} steps; the same command "
            + ("resumes" if worth else "begins again"),
            self._run_dir,
        )
        return "interrupted"

    def _finish(self) -> Outcome:
        if len(self.host.diverged()) == self._config.num_seeds:
            self._write_status("diverged")
            self._progress.print(
                "every run became non-finite. Try a lower learning rate (sac.learning_rate, "
                "policy_search.learning_rate) or sac.critic_layer_norm; see",
                self._run_dir / logs.METRICS,
            )
            return "diverged"
        self._write_status("finished")
        self._progress.phase("playing an episode for a picture")
        try:
            first = playback.of_run(learned(self._state), 0)
            shown = playback.render(
                self._env,
                self._group.runs[0],
                self._run_dir,
                first,
                figure_format=self._figure_format,
            )
            for line in shown.notes:
                self._progress.print(line)
        except (UserError, OSError) as problem:
            self._progress.print(f"warning: no picture of an episode: {problem}")
        self._progress.print(closing_line(self.host, self._config.eval_episodes))
        self._progress.print("see", self._run_dir)
        return "finished"

    def _write_status(self, state: str) -> None:
        run_directory.write_status(
            self._run_dir,
            state,
            **{k: v for k, v in dataclasses.asdict(self.host).items() if k != "log"},
            compile_seconds=self._compiled.seconds,
            diverged=self.host.diverged(),
        )


def _restored(
    run_dir: Path, setup: Setup, log: RunLog, progress: Progress
) -> checkpoint.Restored | None:
    """Restore what was trained before, if there is anything, and put the log back to there."""
    restored, problems = restore_runs(run_dir, setup, goes_on=True)
    for problem in problems:
        progress.print(f"warning: {problem}")
    if restored is None:
        log.rewind(logs.BEGINNING)
    else:
        host = HostState(**restored.host)
        log.rewind(host.log)
        progress.print(f"resuming at {host.env_steps:,} environment steps:", run_dir)
        progress.update(host.env_steps, round(host.gradient_steps))
    return restored


def train_group(
    group: Group,
    run_dir: Path,
    command: Sequence[str] = (),
    env: Env | None = None,
    *,
    init_from: Beginning | None = None,
    on_evaluation: Callable[[list[Row]], None] | None = None,
    figure_format: Collection[str] = (),
    log: Sequence[str] = tracker.DEFAULT,
    part_of: str | None = None,
) -> Outcome:
    """Train the runs of a group, or resume them, and say how that ended.

    Args:
      group: what to train.
      run_dir: where everything goes; made if need be.
      command: the command line, for `environment.json`; empty if there is none.
      env: their environment; the one that their configuration names if None.
      init_from: what other runs have learned, with which new ones begin.
      on_evaluation: told the rows of each evaluation, one a run, with its newest metrics.
      figure_format: formats of figures besides PNG; in these a finished run is drawn anew.
      log: names of the trackers that are told of them.
      part_of: under which name trackers put them with others; the directory's if None.

    Returns:
      "finished", "interrupted" if it was saved before, or "diverged" if every run did.

    Raises:
      ConfigError: the environment is unknown, the library of a tracker is missing, the directory
        belongs to another configuration, or the device has too little memory. Nothing was changed
        then.
      DiskError: something cannot be written; what was saved before is as it was.
      CheckpointError: no checkpoint can be gone on from.
    """
    tracker.check(log)
    devices.use_host_devices(len(group.runs))
    setup = set_up(group, env)
    begin = spread(init_from.learned, setup) if init_from else {}
    memory = plan.describe_memory(plan.check_fits(setup))
    with run_directory.opened(run_dir, group) as is_finished:
        if is_finished and has_its_rows(run_dir):
            if figure_format:
                draw_figures(group.config, run_dir, figure_format)
            say(
                Console(),
                "finished already; choose another run directory to train again:",
                run_dir,
            )
            return "finished"
        info = logs.environment_info(command, devices.describe_devices())
        if init_from:
            place = run_directory.place_of(Path(init_from.run), run_dir)
            info["init_from"] = {**place, "env_steps": init_from.env_steps}
        info["observed"] = setup.env.spec.components
        run_directory.write_environment(run_dir, info)
        print(f"memory: {memory}")
        with Progress(group.config.total_env_steps) as progress:
            together = part_of or run_dir.resolve().name
            facts = facts_of(group, run_dir)
            trackers = Trackers(log, run_dir, together, facts, progress.print)
            with RunLog(run_dir, trackers) as run_log:
                # In this order: what is wrong with a checkpoint is known before minutes of
                # compiling. Neither is kept here, as a checkpoint's arrays are given away.
                training = Training(
                    setup,
                    time.monotonic(),
                    _restored(run_dir, setup, run_log, progress),
                    compile_program(setup, progress.phase),
                    run_dir,
                    run_log,
                    progress,
                    begin,
                    on_evaluation,
                    figure_format,
                )
                outcome = training.run()
                run_log.close(outcome)
            return outcome
