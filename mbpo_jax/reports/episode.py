"""An episode as curves over time, for environments that no viewer shows."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mbpo_jax.reports.figures import (
    BLUE,
    GREEN,
    MOST_MARKERS,
    THOUSANDS,
    VERMILLION,
    figure_style,
)
from mbpo_jax.types import EnvSpec, Transition


class Strip(NamedTuple):
    """One curve of an episode.

    Attributes:
      name: of what is shown.
      color: of the curve.
      values: `[T + 1]` for what is seen between actions, `[T]` for what lasts as long as an action;
        integers where they are but numbers of things.
      limits: of the axis; None if the values decide.
    """

    name: str
    color: str
    values: np.ndarray
    limits: tuple[float, float] | None = None


def episode_figure(spec: EnvSpec, transitions: Transition, title: str) -> Figure:
    """Draw observations, actions and rewards of one episode against simulated time.

    Each component has a strip of its own, because they may differ in size by far. An action is
    drawn for as long as it lasts, and so is the reward of that time.

    Args:
      spec: of the environment.
      transitions: of the episode, fields `[T, ...]`.
      title: heading.
    """
    strips = episode_strips(spec, transitions)
    num_steps = len(transitions.reward)
    with figure_style():
        figure = Figure(figsize=(6.4, 0.9 + 0.75 * len(strips)), layout="constrained")
        panels = figure.subplots(len(strips), sharex=True)
        panels[0].set_title(title)
        for panel, strip in zip(panels, strips, strict=True):
            _draw_strip(panel, strip, spec.dt, num_steps)
        figure.align_ylabels()
        panels[-1].set_xlabel("Time (s)")
        panels[-1].xaxis.set_major_formatter(THOUSANDS)
    return figure


def episode_strips(spec: EnvSpec, transitions: Transition) -> list[Strip]:
    """Return the curves of an episode; where states and moves are numbered, their numbers."""
    # Not all from `next_observation`: a continuing task goes on elsewhere than where a step led.
    observations = np.concatenate([transitions.observation, transitions.next_observation[-1:]])
    actions = np.asarray(transitions.action)
    reward = Strip("reward", GREEN, np.asarray(transitions.reward))
    if spec.tabular:
        state, move = observations.argmax(axis=-1), actions.argmax(axis=-1)
        return [
            Strip("state", BLUE, state, (-0.5, spec.observation_size - 0.5)),
            Strip("move", VERMILLION, move, (-0.5, spec.action_size - 0.5)),
            reward,
        ]
    seen = zip(spec.components, observations.T, strict=True)
    acted = (
        ["action"] if spec.action_size == 1 else [f"action {i}" for i in range(spec.action_size)]
    )
    done = zip(acted, actions.T, strict=True)
    return [
        *(Strip(name, BLUE, values) for name, values in seen),
        *(Strip(name, VERMILLION, values, (-1.1, 1.1)) for name, values in done),
        reward,
    ]


def _draw_strip(panel: Axes, strip: Strip, dt: float, num_steps: int) -> None:
    name, color, values, limits = strip
    numbers, lasts = np.issubdtype(values.dtype, np.integer), len(values) == num_steps
    if lasts:
        values = np.append(values, values[-1])  # until the end of its step
    (line,) = panel.plot(dt * np.arange(num_steps + 1), values, color=color)
    if numbers or lasts:
        line.set_drawstyle("steps-post")
    elif num_steps <= MOST_MARKERS:
        line.set_marker("o")
    panel.margins(x=0.01)
    if limits is not None:
        panel.set_ylim(*limits)
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=numbers))
    panel.yaxis.set_major_formatter(THOUSANDS)
    panel.set_ylabel(name, rotation=0, horizontalalignment="right", verticalalignment="center")
