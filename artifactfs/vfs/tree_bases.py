"""What each change of a tree was made on: what its maker had seen, whatever this mount has learnt since.

Rules of this file: an older version is asked for once per try, however many changes were made on it. What it was to who
changed it, and cannot be found out any more, is nothing: then what others have stays, and the change is kept beside.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from artifactfs import errors
from artifactfs.model.content import Access, ContentRef, Unknown
from artifactfs.model.entry import Artifact, TreeMember
from artifactfs.tree.merging import Began, above, sha256_of
from artifactfs.vfs.context import PASSES, Context
from artifactfs.vfs.overlay import WorkTree, is_below
from artifactfs.vfs.tree_taken import Members, Taken, hash_of, version_of

log = logging.getLogger(__name__)

# Tries of a tree in which an older version could not be read: two minutes of pauses. The present one can be, so that
# others need not wait for what may never come back.
MAX_LOOKS = 8


def as_seen(sha256: str, path: str, there: TreeMember | None) -> TreeMember:
    """Return the file that a writer began with; what else he could see of it is as in the tree's base."""
    executable = there is not None and there.executable
    if there is None or there.kind != "file":
        there = TreeMember(path, "file", executable=executable)
    if there.content is not None and sha256_of(there) in {None, sha256}:
        return there
    return replace(there, content=ContentRef("", sha256, (), Unknown(), Access.RANGED, sha256))


@dataclass(slots=True)
class TreeBases:
    """What the changes of one tree were made on, in one try.

    Attributes:
        began: what of that is not what the tree's base has, as it was when the changes were taken.
        looked: the members of each version that was asked for, by its id; None: nobody can tell any more.
    """

    context: Context
    tree: WorkTree
    began: dict[str, Began]
    looked: dict[str | None, Members | None] = field(default_factory=dict)

    async def now(self, head: Artifact) -> Members:
        """Return what the current version holds."""
        found = self.looked.get(version_of(head))
        if found is None:
            found = self.looked[version_of(head)] = await self._members(head)
        return found

    async def of(self, taken: Sequence[Taken], head: Artifact) -> Members:
        """Return what the tree was to who made the changes."""
        now = await self.now(head)
        before = await self._before(self.tree.base)
        base = dict(before or {})
        known = {**self.began}
        for one in taken:
            # The base is of the moment when the first change of the tree was durable, or of its last version; a file
            # may have been open for longer.
            is_of_this = isinstance(one.seen, Artifact) or before is None or one.at in base or one.at in known
            if one.seen is not None and is_of_this:
                known[one.at] = one.seen
        for path, seen in known.items():
            member = await self._member(path, seen, base.get(path))
            if member is None:
                base.pop(path, None)
            else:
                base[path] = member
        base = self._with_sent(base, now)
        if version_of(head) != version_of(self.tree.base):
            base.update((one.at, now[one.at]) for one in taken if self._has_seen(one, now))
        return self._without_remade(base, now)

    async def _member(self, path: str, seen: Began, there: TreeMember | None) -> TreeMember | None:
        match seen:
            case str():
                return as_seen(seen, path, there)
            case Artifact():
                return (await self._before(seen) or {}).get(path)
            case _:
                return seen

    async def _members(self, artifact: Artifact) -> Members:
        members = await self.context.directories.trees.members(self.tree.source, artifact, artifact.current)
        return {member.path: member for member in members}

    async def _before(self, artifact: Artifact) -> Members | None:
        """Return what an older version holds; None if nobody can tell any more.

        Raises:
            ArtifactFSError: it may pass.
        """
        version = version_of(artifact)
        if version not in self.looked:
            try:
                self.looked[version] = await self._members(artifact)
            except errors.ArtifactFSError as error:
                if self.tree.tries < MAX_LOOKS:
                    if isinstance(error, PASSES):
                        raise
                    if isinstance(error, errors.ProviderMisbehaved):  # a gateway's page, which may pass
                        message = f"what {self.tree.shown} was cannot be read: {error}"
                        raise errors.Unavailable(message, status=error.status) from error
                log.info("what %s was when it was changed cannot be found out: %s", self.tree.shown, error)
                self.looked[version] = None
        return self.looked[version]

    def _without_remade(self, base: Members, now: Members) -> Members:
        """Return the base without what is in directories that were made or moved here, and is not there any more.

        A try whose answer was lost may have removed that, with its directory. Whoever did: all that such a directory
        holds was put there, also what the base has just so; to leave it out as nobody's change would lose it.
        """
        opaque = self.tree.opaque
        return {path: one for path, one in base.items() if path in now or opaque.isdisjoint((*above(path), path))}

    @staticmethod
    def _has_seen(one: Taken, now: Mapping[str, TreeMember]) -> bool:
        """Tell whether a writer began with what somebody else has made of a file since the base."""
        return isinstance(one.seen, str) and one.at in now and hash_of(now[one.at]) == one.seen

    def _with_sent(self, base: Members, now: Members) -> Members:
        """Return the base with what an earlier try of ours made of it, as far as that is what is there now."""
        known = dict(base)
        for path, hashes in self.tree.sent.items():
            member = now.get(path)
            if member is None and None in hashes:
                # With all that was below it: else that would stand for a directory that is there still.
                for gone in [one for one in known if is_below(one, path) and one not in now]:
                    del known[gone]
            elif member is not None and hash_of(member) in hashes:
                known[path] = member
        return known
