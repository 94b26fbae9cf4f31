"""Take a dead worker out of its consumer group, so that the others need not wait for its session.

Workers are static members: the broker keeps the partitions of a silent one until its session has
timed out, so that a restart in place moves nothing. That is worth it only where nobody else could
work meanwhile. Where others live, a worker that starts again under the name of a dead one says so
first, and they take over within a heartbeat while it still loads.
"""

from __future__ import annotations

from solvent.errors import ServiceError
from solvent.ops.broker import admin_client

__all__ = ["release_name"]


def release_name(bootstrap_servers: str, group: str, instance: str) -> bool:
    """Remove the member of that name from the group if there are others.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port[,host:port]``.
    group, instance : str
        Consumer group, and the name of a member that is certainly dead: the caller holds it.

    Returns
    -------
    bool
        Whether a member was removed. A group of one is left as it is: brokers let the first member
        of an empty group wait for more (``group.initial.rebalance.delay.ms``). False, too, where
        the broker cannot be asked: then the session timeout decides, as ever.
    """
    from kafka.admin import MemberToRemove

    try:
        with admin_client(bootstrap_servers) as admin:
            members = admin.describe_groups([group])[group]["members"]
            names = [member.get("group_instance_id") for member in members]
            if instance not in names or len(members) < 2:
                return False
            admin.remove_group_members(group, [MemberToRemove(group_instance_id=instance)])
    except ServiceError:
        return False
    return True
