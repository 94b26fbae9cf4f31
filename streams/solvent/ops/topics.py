"""Topics as they must be against topics as they are: plan, then apply.

The table in ``solvent.wire.topics`` says what each topic must be. `plan` compares it with the
broker and changes nothing; `apply` creates what is missing and alters settings that drifted.
A partition count is never changed: it decides which partition an account lives on, so a different
one is refused by name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from solvent.errors import ConfigError, ServiceError
from solvent.ops.broker import admin_client
from solvent.wire.topics import TOPICS, Topics, TopicSpec

__all__ = ["Plan", "TopicState", "apply", "plan"]

_READY_DEADLINE_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """One topic: what it must be and what the broker has.

    Attributes
    ----------
    name, physical : str
        Logical name and the broker's.
    partitions, config
        As they must be.
    found_partitions : int or None
        None if the topic does not exist.
    found_config : mapping
        The broker's values of the keys in ``config``.
    """

    name: str
    physical: str
    per_account: bool
    partitions: int
    config: Mapping[str, str]
    found_partitions: int | None
    found_config: Mapping[str, str]

    @property
    def is_missing(self) -> bool:
        """The broker has no such topic."""
        return self.found_partitions is None

    @property
    def has_partition_drift(self) -> bool:
        """It exists with another number of partitions."""
        return self.found_partitions not in (None, self.partitions)

    @property
    def config_drift(self) -> dict[str, tuple[str | None, str]]:
        """Settings that differ: name -> (found, wanted)."""
        if self.is_missing:
            return {}
        return {
            key: (self.found_config.get(key), wanted)
            for key, wanted in self.config.items()
            if self.found_config.get(key) != wanted
        }

    @property
    def findings(self) -> list[str]:
        """What is wrong, one line each; empty if nothing is."""
        if self.is_missing:
            return [f"{self.physical}: missing, {self.partitions} partitions wanted"]
        lines = []
        if self.has_partition_drift:
            lines.append(
                f"{self.physical}: {self.found_partitions} partitions, {self.partitions} wanted"
            )
        lines += [
            f"{self.physical}: {key} is {found}, {wanted} wanted"
            for key, (found, wanted) in self.config_drift.items()
        ]
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All topics of one pipeline, in the order of the topic table."""

    states: tuple[TopicState, ...]

    @property
    def to_create(self) -> list[TopicState]:
        """Topics that do not exist."""
        return [state for state in self.states if state.is_missing]

    @property
    def to_alter(self) -> list[TopicState]:
        """Topics with settings that drifted."""
        return [state for state in self.states if state.config_drift]

    @property
    def refused(self) -> list[TopicState]:
        """Topics whose partition count is wrong, which `apply` will not touch."""
        return [state for state in self.states if state.has_partition_drift]

    @property
    def is_in_line(self) -> bool:
        """Nothing to do."""
        return not (self.to_create or self.to_alter or self.refused)

    @property
    def copartition_finding(self) -> str | None:
        """The account-keyed topics' partition counts, if they differ among themselves."""
        counts: dict[int, list[str]] = {}
        for state in self.states:
            if state.per_account and state.found_partitions is not None:
                counts.setdefault(state.found_partitions, []).append(state.physical)
        if len(counts) < 2:
            return None
        told = "; ".join(f"{count}: {', '.join(names)}" for count, names in sorted(counts.items()))
        return f"account-keyed topics are not co-partitioned ({told})"


def plan(bootstrap_servers: str, topics: Topics) -> Plan:
    """Compare the topic table with the broker and change nothing.

    Raises
    ------
    ServiceError
        [SLV-608] The broker does not answer.
    """
    with admin_client(bootstrap_servers) as admin:
        return _plan(admin, topics)


def apply(bootstrap_servers: str, topics: Topics) -> Plan:
    """Create missing topics, alter drifted settings, wait for leaders; return what was done.

    Replication factors are the broker's default. Applying twice does nothing the second time.

    Returns
    -------
    Plan
        The plan that was carried out: its ``to_create`` now exist, its ``to_alter`` are in line.

    Raises
    ------
    ConfigError
        [SLV-410] A partition count differs; nothing was changed.
    ServiceError
        [SLV-608] The broker does not answer or refuses, [SLV-609] leaders did not appear in time.
    """
    with admin_client(bootstrap_servers) as admin:
        found = _plan(admin, topics)
        _refuse_partition_drift(found)
        if found.to_create:
            _create(admin, found.to_create)
        for state in found.to_alter:
            _alter(admin, state)
        _wait_in_line(admin, topics)
    return found


def _plan(admin: Any, topics: Topics) -> Plan:  # noqa: ANN401 - kafka-python is untyped
    partitions = {
        topic["name"]: len(topic["partitions"])
        for topic in admin.describe_topics([topics.physical(spec.name) for spec in TOPICS])
        if topic["error_code"] == 0
    }
    configs = _describe_configs(admin, list(partitions))
    return Plan(states=tuple(_state(spec, topics, partitions, configs) for spec in TOPICS))


def _state(
    spec: TopicSpec,
    topics: Topics,
    partitions: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
) -> TopicState:
    physical = topics.physical(spec.name)
    wanted = spec.config()
    found = configs.get(physical, {})
    return TopicState(
        name=spec.name,
        physical=physical,
        per_account=spec.per_account,
        partitions=spec.partitions(topics.partitions),
        config=wanted,
        found_partitions=partitions.get(physical),
        found_config={key: found[key] for key in wanted if key in found},
    )


def _describe_configs(admin: Any, names: list[str]) -> dict[str, dict[str, str]]:  # noqa: ANN401
    if not names:
        return {}
    from kafka.admin import ConfigResource

    answer = admin.describe_configs(
        [ConfigResource("topic", n) for n in names], config_filter="all"
    )
    return {
        name: {key: entry["value"] for key, entry in entries.items()}
        for name, entries in answer.get("topic", {}).items()
    }


def _wait_in_line(admin: Any, topics: Topics) -> None:  # noqa: ANN401
    """Wait until the broker shows all topics as they must be, with leaders."""
    from kafka.errors import KafkaTimeoutError

    names = [topics.physical(spec.name) for spec in TOPICS]
    deadline = time.monotonic() + _READY_DEADLINE_S
    try:
        admin.wait_for_topics(names, timeout_ms=_READY_DEADLINE_S * 1000)
    except KafkaTimeoutError as error:
        msg = f"topics have no leader after {_READY_DEADLINE_S} s: {error}"
        raise ServiceError(msg, code="SLV-609") from None
    while not (found := _plan(admin, topics)).is_in_line:
        if time.monotonic() > deadline:
            wrong = next(line for state in found.states for line in state.findings)
            msg = f"topics are not in line after {_READY_DEADLINE_S} s: {wrong}"
            raise ServiceError(msg, code="SLV-609")
        time.sleep(0.05)  # the node that answers may not have read the change yet


def _refuse_partition_drift(found: Plan) -> None:
    if not found.refused:
        return
    first = found.refused[0]
    more = f" (and {len(found.refused) - 1} more)" if len(found.refused) > 1 else ""
    msg = (
        f"topic {first.physical}: {first.found_partitions} partitions, {first.partitions} wanted"
        f"{more}: set SOLVENT_PARTITIONS to what exists, or use another SOLVENT_TOPIC_PREFIX; "
        "accounts cannot move between partitions"
    )
    raise ConfigError(msg, code="SLV-410")


def _create(admin: Any, states: list[TopicState]) -> None:  # noqa: ANN401
    from kafka.errors import TopicAlreadyExistsError

    wanted = {
        state.physical: {"num_partitions": state.partitions, "configs": dict(state.config)}
        for state in states
    }
    try:
        admin.create_topics(wanted)
    except TopicAlreadyExistsError:
        # Somebody else applies at this moment. Each topic stands alone in the request, so ours
        # that did not exist were made; theirs must still be what the table says.
        for state in states:
            admin.create_topics({state.physical: wanted[state.physical]}, raise_errors=False)


def _alter(admin: Any, state: TopicState) -> None:  # noqa: ANN401
    from kafka.admin import ConfigResource

    changes = {key: wanted for key, (_, wanted) in state.config_drift.items()}
    answer = admin.alter_configs([ConfigResource("topic", state.physical, configs=changes)])
    outcome = answer["topic"][state.physical]
    if outcome != "OK":
        msg = f"topic {state.physical}: broker refused {changes}: {outcome}"
        raise ServiceError(msg, code="SLV-609")
