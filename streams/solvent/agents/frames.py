"""What both agents do with a frame."""

from __future__ import annotations

from typing import Any

from faust.types import AgentT, AppT
from mode.supervisors import CrashingSupervisor

from solvent.runtime.lane import AgentSpec
from solvent.runtime.lanes import Lanes
from solvent.runtime.transport import RawSchema

__all__ = ["register_agent"]


def register_agent(app: AppT, lanes: Lanes, spec: AgentSpec) -> AgentT[Any]:
    """Register the Faust agent of `spec`: each frame goes to its partition's lane.

    The stream acks nothing itself: a lane acks a frame once its slice is committed. An exception
    here stops the worker (`CrashingSupervisor`): Faust would ack the frame and go on.
    """
    topic = app.topic(
        *(lanes.topics.physical(name) for name in spec.inputs),
        schema=RawSchema(
            key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        ),
    )

    async def step(frames: Any) -> None:
        async for event in frames.noack().events():
            lanes.dispatch(event)

    return app.agent(topic, name=spec.name, supervisor_strategy=CrashingSupervisor)(step)
