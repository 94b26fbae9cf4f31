"""`solvent.ops.topics` on a real broker: what is created, what drifts, what is refused."""

from __future__ import annotations

import pytest

from solvent.errors import ConfigError, ServiceError
from solvent.ops.broker import admin_client
from solvent.ops.topics import apply, plan
from solvent.wire.topics import ACCOUNTS, MARKS, ORACLE_TICKS, TOPICS, TRADES, Topics
from support.broker import Broker
from support.waiting import wait_for

pytestmark = pytest.mark.kafka


def test_apply_on_empty_broker_creates_every_topic_as_the_table_says(kafka: Broker) -> None:
    topics = kafka.topics(partitions=3)
    before = plan(kafka.bootstrap_servers, topics)
    assert [state.name for state in before.to_create] == [spec.name for spec in TOPICS]

    done = apply(kafka.bootstrap_servers, topics)
    assert len(done.to_create) == len(TOPICS)

    after = plan(kafka.bootstrap_servers, topics)
    assert after.is_in_line
    assert after.copartition_finding is None
    found = {state.name: state for state in after.states}
    assert found[TRADES].found_partitions == 3
    assert found[ORACLE_TICKS].found_partitions == 1
    assert found[ACCOUNTS].found_config["cleanup.policy"] == "compact"
    assert found[ACCOUNTS].found_config["max.message.bytes"] == str(8 << 20)
    assert found[MARKS].found_config["retention.ms"] == str(30 * 24 * 3600 * 1000)


def test_apply_twice_does_nothing_the_second_time(kafka: Broker) -> None:
    kafka.apply_topics()
    assert apply(kafka.bootstrap_servers, kafka.topics()).is_in_line


def test_apply_with_drifted_config_alters_it_back(kafka: Broker) -> None:
    from kafka.admin import ConfigResource

    topics = kafka.apply_topics()
    accounts = topics.physical(ACCOUNTS)
    with admin_client(kafka.bootstrap_servers) as admin:
        admin.alter_configs([ConfigResource("topic", accounts, {"cleanup.policy": "delete"})])

    drifted = wait_for(
        lambda: plan(kafka.bootstrap_servers, topics), lambda found: bool(found.to_alter)
    )
    assert [state.physical for state in drifted.to_alter] == [accounts]
    assert drifted.to_alter[0].findings == [f"{accounts}: cleanup.policy is delete, compact wanted"]

    apply(kafka.bootstrap_servers, topics)
    assert plan(kafka.bootstrap_servers, topics).is_in_line


def test_apply_with_other_partition_count_refuses_and_changes_nothing(kafka: Broker) -> None:
    topics = kafka.topics(partitions=2)
    trades = topics.physical(TRADES)
    with admin_client(kafka.bootstrap_servers) as admin:
        admin.create_topics({trades: {"num_partitions": 5}}, wait_for_metadata=True)

    with pytest.raises(ConfigError, match=f"{trades}: 5 partitions, 2 wanted") as caught:
        apply(kafka.bootstrap_servers, topics)
    assert caught.value.code == "SLV-410"

    after = plan(kafka.bootstrap_servers, topics)
    assert [state.physical for state in after.refused] == [trades]
    assert len(after.to_create) == len(TOPICS) - 1


def test_plan_with_unequal_account_topics_says_not_copartitioned(kafka: Broker) -> None:
    apply(kafka.bootstrap_servers, kafka.topics(partitions=2))
    with admin_client(kafka.bootstrap_servers) as admin:
        admin.create_partitions({kafka.topics().physical(TRADES): 4})

    finding = wait_for(
        lambda: plan(kafka.bootstrap_servers, kafka.topics()).copartition_finding, bool
    )
    assert finding is not None
    assert f"4: {kafka.topics().physical(TRADES)}" in finding


def test_plan_without_broker_says_what_to_do() -> None:
    with pytest.raises(ServiceError, match="solvent kafka start") as caught:
        plan("127.0.0.1:1", Topics())
    assert caught.value.code == "SLV-608"
