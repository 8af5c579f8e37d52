"""``muster remove``: a member less in the cluster file, once nobody needs it."""

from __future__ import annotations

import click

from muster.cli.change import Change, Result, changes_member


@click.command()
@changes_member("removed", wait_s=60.0)
async def remove(change: Change) -> Result:
    """Drain MEMBER, let balancers forget it, and take it out of the cluster file.

    When its clients do not leave in time nothing is taken out and the wish stands: run it again, or muster ready MEMBER.
    """
    from muster.app.settings import loaded
    from muster.cli.candidate import checked
    from muster.cluster.edited import without_member
    from muster.kernel.errors import Conflict
    from muster.kernel.files import write_atomically

    path = change.cluster_path
    cluster = loaded(path)
    name = str(cluster.member(change.name).name)
    if len(cluster.members) == 1:
        raise Conflict(f"{name} is the last member; a cluster has at least one")
    text = without_member(path.read_text("utf-8"), name)
    checked(path, text)
    steps = [f"take {name} out of {path}", f"copy {path} to every other host", f"stop the member's process on {name}"]
    result = await change.carried_out()
    if change.dry:
        return {**result, "steps": [*result["steps"], *steps]}
    if not result["done"]:
        return result
    # Read again: waiting took a while, and somebody may have changed the file.
    write_atomically(path, without_member(path.read_text("utf-8"), name), mode=path.stat().st_mode & 0o777)
    sentence = f"{name} is removed and no longer in {path}. What is left to do:"
    return {**result, "steps": steps[1:], "sentence": sentence, "steps_follow": True}
