"""The data that the curves of an episode show."""

import io

import numpy as np
import pytest

from mbpo_jax.reports.episode import episode_figure, episode_strips
from mbpo_jax.types import EnvSpec, Transition


def _spec(observation_size: int, action_size: int, *, tabular: bool = False) -> EnvSpec:
    return EnvSpec("name", observation_size, action_size, 100, 1, 0.5, tabular)


def _episode(observations, actions, rewards) -> Transition:
    """Return the transitions between `T + 1` observations."""
    observations = np.asarray(observations, np.float32)
    return Transition(
        observation=observations[:-1],
        action=np.asarray(actions, np.float32),
        reward=np.asarray(rewards, np.float32),
        discount=np.ones(len(rewards), np.float32),
        next_observation=observations[1:],
    )


EPISODE = _episode(
    observations=[[0, 10], [1, 20], [2, 40], [3, 80]],
    actions=[[0.5], [-0.5], [1.0]],
    rewards=[7, 8, 9],
)


def test_components_are_shown_apart_with_the_observation_after_the_last_action():
    strips = {strip.name: strip.values for strip in episode_strips(_spec(2, 1), EPISODE)}
    np.testing.assert_array_equal(strips.pop("observation 0"), [0, 1, 2, 3])
    np.testing.assert_array_equal(strips.pop("observation 1"), [10, 20, 40, 80])
    np.testing.assert_array_equal(strips.pop("action"), [0.5, -0.5, 1.0])
    np.testing.assert_array_equal(strips.pop("reward"), [7, 8, 9])
    assert not strips


def test_components_have_the_names_that_the_environment_gives_them():
    spec = _spec(2, 1)._replace(observed=("cos θ",))
    names = [strip.name for strip in episode_strips(spec, EPISODE)]
    assert names == ["cos θ", "observation 1", "action", "reward"]


def test_a_continuing_task_is_shown_where_it_goes_on():
    led_to = np.array([[1], [9], [5]], np.float32)  # but after the second step it starts again
    transitions = _episode([[0], [1], [0], [5]], [[0.0]] * 3, [0, 1, 0])
    seen, *_ = episode_strips(_spec(1, 1), transitions._replace(next_observation=led_to))
    np.testing.assert_array_equal(seen.values, [0, 1, 0, 5])


def test_numbered_states_and_moves_are_shown_as_numbers():
    transitions = _episode(np.eye(5)[[2, 3, 0]], [[0, 0.1, 0, 0], [0, 0, 0, 1]], [0, 1])
    state, move, reward = episode_strips(_spec(5, 4, tabular=True), transitions)
    np.testing.assert_array_equal(state.values, [2, 3, 0])
    np.testing.assert_array_equal(move.values, [1, 3])
    np.testing.assert_array_equal(reward.values, [0, 1])
    assert (state.name, move.name, reward.name) == ("state", "move", "reward")


def test_time_is_in_seconds_and_actions_and_rewards_last_until_the_next():
    figure = episode_figure(_spec(2, 1), EPISODE, "title")
    names = [panel.get_ylabel() for panel in figure.axes]
    assert names == ["observation 0", "observation 1", "action", "reward"]
    assert figure.axes[-1].get_xlabel() == "Time (s)"
    lines = [panel.lines[0] for panel in figure.axes]
    for line in lines:
        np.testing.assert_allclose(line.get_xdata(), [0.0, 0.5, 1.0, 1.5])
    assert [line.get_drawstyle() for line in lines] == ["default"] * 2 + ["steps-post"] * 2
    np.testing.assert_array_equal(lines[2].get_ydata(), [0.5, -0.5, 1.0, 1.0])
    np.testing.assert_array_equal(lines[3].get_ydata(), [7, 8, 9, 9])


def test_actions_are_seen_within_their_whole_range():
    figure = episode_figure(_spec(2, 1), EPISODE._replace(action=EPISODE.action * 1e-3), "title")
    low, high = figure.axes[2].get_ylim()
    assert low < -1
    assert high > 1


def test_the_title_stands_above_all():
    figure = episode_figure(_spec(2, 1), EPISODE, "SAC on lq: return -2.5")
    assert figure.axes[0].get_title(loc="left") == "SAC on lq: return -2.5"


@pytest.mark.parametrize("tabular", [False, True])
def test_an_episode_of_one_step_can_be_drawn_without_a_warning(tabular, recwarn):
    transitions = _episode([[0, 1], [1, 0]], [[0.0, 0.5]], [1])
    figure = episode_figure(_spec(2, 2, tabular=tabular), transitions, "title")
    figure.savefig(io.BytesIO(), format="png")
    assert not recwarn.list
