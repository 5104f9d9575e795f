"""mbrl-lib's side of the comparison of parts; runs in the peer's own environment, for `peers`.

The reference configuration where the library's own differs: automatic temperature, target update at
each step, learned log-variance bounds, 256-unit SAC networks. Single precision throughout, although
the library's MBPO configuration stores and normalises in double: the faster choice is the fair one.
"""

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import gymnasium
import torch
from mbrl import __version__ as mbrl_version
from mbrl.algorithms.mbpo import rollout_model_and_populate_sac_buffer
from mbrl.env import termination_fns
from mbrl.models import GaussianMLP, ModelEnv, ModelTrainer, OneDTransitionRewardModel
from mbrl.planning.sac_wrapper import SACAgent
from mbrl.third_party.pytorch_sac_pranz24 import SAC
from mbrl.util import ReplayBuffer
from mbrl.util.common import get_basic_buffer_iterators

from benchmarks import worker

OBSERVATION_SPACE = gymnasium.spaces.Box(-float("inf"), float("inf"), (worker.OBSERVATION_SIZE,))
ACTION_SPACE = gymnasium.spaces.Box(-1.0, 1.0, (worker.ACTION_SIZE,))


def make_replay(capacity: int) -> ReplayBuffer:
    """Return an empty float32 buffer of Hopper transitions."""
    return ReplayBuffer(capacity, OBSERVATION_SPACE.shape, ACTION_SPACE.shape)


def make_filled_replay() -> ReplayBuffer:
    """Return a buffer filled with the comparison's random transitions, none truncated."""
    data = worker.random_transitions()
    replay = make_replay(worker.NUM_TRANSITIONS)
    replay.add_batch(*data, truncated=data.terminated & False)
    return replay


def make_agent(
    observation_size: int = worker.OBSERVATION_SIZE,
    action_space: gymnasium.spaces.Box = ACTION_SPACE,
    hidden_size: int = worker.SAC_HIDDEN_SIZE,
    target_entropy: float = -1.0,
    target_update_interval: int = 1,
    learns_temperature: bool = True,
) -> SAC:
    """Return SAC, as the MBPO paper configures it if nothing else is said."""
    options = SimpleNamespace(
        gamma=0.99,
        tau=0.005,
        alpha=1.0 if learns_temperature else 0.2,
        policy="Gaussian",
        target_update_interval=target_update_interval,
        automatic_entropy_tuning=learns_temperature,
        target_entropy=target_entropy,
        hidden_size=hidden_size,
        lr=3e-4,
        device="cpu",
    )
    return SAC(observation_size, action_space, options)


def make_ensemble(
    observation_size: int = worker.OBSERVATION_SIZE,
    action_size: int = worker.ACTION_SIZE,
    hidden_sizes: Sequence[int] = (worker.MODEL_HIDDEN_SIZE,) * worker.MODEL_NUM_LAYERS,
    num_members: int = worker.NUM_MEMBERS,
    num_elites: int = worker.NUM_ELITES,
    *,
    learn_bounds: bool = True,
) -> OneDTransitionRewardModel:
    """Return the probabilistic ensemble; all hidden layers have the width of the first."""
    ensemble = GaussianMLP(
        in_size=observation_size + action_size,
        out_size=observation_size + 1,
        device="cpu",
        num_layers=len(hidden_sizes),
        ensemble_size=num_members,
        hid_size=hidden_sizes[0],
        propagation_method="random_model",
        learn_logvar_bounds=learn_bounds,
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    return OneDTransitionRewardModel(ensemble, normalize=True, num_elites=num_elites)


def make_model(replay: ReplayBuffer) -> OneDTransitionRewardModel:
    """Return the probabilistic ensemble, its inputs normalised to `replay`."""
    model = make_ensemble()
    model.update_normalizer(replay.get_all())
    model.set_elite(range(worker.NUM_ELITES))
    return model


def make_sac_update(replay: ReplayBuffer) -> worker.Component:
    """Time one update of critics, policy, temperature and targets, with the batch's sampling."""
    agent = make_agent()
    return timed(lambda step: agent.update_parameters(replay, worker.BATCH_SIZE, step))


def make_ensemble_step(replay: ReplayBuffer) -> worker.Component:
    """Time one gradient step of all members, within whole epochs of bootstrapped minibatches."""
    batches, _ = get_basic_buffer_iterators(
        replay, worker.BATCH_SIZE, worker.HOLDOUT_RATIO, ensemble_size=worker.NUM_MEMBERS
    )
    trainer = ModelTrainer(make_model(replay), optim_lr=1e-3, weight_decay=1e-5)
    seconds_per_epoch = timed(
        lambda _: trainer.train(batches, num_epochs=1, evaluate=False, silent=True)
    )
    return lambda repeats: seconds_per_epoch(max(repeats // len(batches), 1)) / len(batches)


def make_rollout(replay: ReplayBuffer) -> worker.Component:
    """Time one transition of a batch of one-step rollouts, stored in SAC's buffer."""
    env = SimpleNamespace(observation_space=OBSERVATION_SPACE, action_space=ACTION_SPACE)
    model_env = ModelEnv(env, make_model(replay), termination_fns.hopper)
    agent, sac_buffer = SACAgent(make_agent()), make_replay(worker.ROLLOUT_BUFFER_SIZE)
    seconds_per_batch = timed(
        lambda _: rollout_model_and_populate_sac_buffer(
            model_env,
            replay,
            agent,
            sac_buffer,
            sac_samples_action=True,
            rollout_horizon=1,
            batch_size=worker.NUM_ROLLOUTS,
        )
    )
    return lambda repeats: (
        seconds_per_batch(max(repeats // worker.NUM_ROLLOUTS, 1)) / worker.NUM_ROLLOUTS
    )


def timed(call: Callable[[int], object]) -> worker.Component:
    """Return a function that makes `repeats` calls and returns the mean seconds of one."""

    def seconds_per_call(repeats: int) -> float:
        start = time.perf_counter()
        for index in range(repeats):
            call(index)
        return (time.perf_counter() - start) / repeats

    return seconds_per_call


def main() -> None:
    """Build the three components and serve them."""
    torch.set_num_threads(worker.num_threads())
    replay = make_filled_replay()
    worker.serve(
        {"mbrl": mbrl_version, "torch": torch.__version__, "threads": torch.get_num_threads()},
        {
            "sac_update": make_sac_update(replay),
            "ensemble_step": make_ensemble_step(replay),
            "rollout": make_rollout(replay),
        },
    )


if __name__ == "__main__":
    main()
