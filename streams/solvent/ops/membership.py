"""Take a dead worker out of its consumer group, so that the others need not wait for its session.

Workers are static members: the broker keeps the partitions of a silent one until its session has
timed out, so that a restart in place moves nothing. That is worth it only where nobody else could
work meanwhile. Where others live, a worker that starts again under the name of a dead one says so
first, and they take over within a heartbeat while it still loads. And where the partitions are not
those of before: a restart in place would get the old ones back, and no others.
"""

from __future__ import annotations

from typing import Any

from solvent.errors import ServiceError
from solvent.ops.broker import admin_client
from solvent.wire.topics import TOPICS, Topics

__all__ = ["release_name"]


def release_name(bootstrap_servers: str, group: str, instance: str, topics: Topics) -> bool:
    """Remove the member of that name from the group if its partitions should be shared out anew.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port[,host:port]``.
    group, instance : str
        Consumer group, and the name of a member that is certainly dead: the caller holds it.
    topics : Topics
        What there is to read now.

    Returns
    -------
    bool
        Whether a member was removed. A group of one that holds everything is left as it is: brokers
        let the first member of an empty group wait for more (``group.initial.rebalance.delay.ms``).
        False, too, where the broker cannot be asked: then the session timeout decides, as ever.
    """
    from kafka.admin import MemberToRemove

    try:
        with admin_client(bootstrap_servers) as admin:
            members = admin.describe_groups([group])[group]["members"]
            names = [member.get("group_instance_id") for member in members]
            if instance not in names or (len(members) == 1 and _holds_all(members[0], topics)):
                return False
            admin.remove_group_members(group, [MemberToRemove(group_instance_id=instance)])
    except ServiceError:
        return False
    return True


def _holds_all(member: dict[str, Any], topics: Topics) -> bool:
    """Return whether a member has every partition of each topic it has any of."""
    shares = (member.get("member_assignment") or {}).get("assigned_partitions", ())
    there = {topics.physical(t.name): t.partitions(topics.partitions) for t in TOPICS}
    return bool(shares) and all(
        sorted(share["partitions"]) == list(range(there.get(share["topic"], 0))) for share in shares
    )
