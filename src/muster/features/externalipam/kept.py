"""Groups and subnets of an IPAM that the settings describe: what ``claims`` and ``memory`` have in common."""

from __future__ import annotations

from collections.abc import Sequence

from muster.features.externalipam.contract import Group, IPNetwork, Subnet, only
from muster.features.externalipam.settings import KeptSettings
from muster.kernel.errors import NotFound


class Described:
    """Subnets in the order of the settings; a group is what a subnet names."""

    def __init__(self, settings: KeptSettings) -> None:
        self.all = [
            Subnet(
                s.network,
                s.group,
                s.description,
                str(s.network),
                s.group,
                s.first,
                s.last,
                frozenset(s.excluded),
            )
            for s in settings.subnets
        ]

    def groups(self) -> Sequence[Group]:
        """Return the groups that subnets name, each once."""
        return [Group(name) for name in dict.fromkeys(s.group for s in self.all) if name]

    def subnets(self, group: str) -> Sequence[Subnet]:
        """Return a group's subnets.

        Raises:
            NotFound: no subnet names it.
        """
        found = [s for s in self.all if group and s.group == group]
        if not found:
            raise NotFound(f"No subnet of the settings names the group {group}")
        return found

    def subnet(self, network: IPNetwork, group: str) -> Subnet:
        """Return the subnet that is this network; without a group's name the one that has none, else the only one.

        Raises:
            NotFound, Rejected: as :meth:`IPAMProvider.subnet`.
        """
        if group:
            among = self.subnets(group)
            for one in among:
                if one.network == network:
                    return one
            raise NotFound(f"The settings have no subnet {network} in group {group}")
        found = [s for s in self.all if s.network == network]
        return only([s for s in found if not s.group] or found, network, "group")
