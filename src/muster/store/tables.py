"""What stands in the store, and the store's own clock. Statements are written with it; the revisions make the tables.

Times are seconds since the epoch in *store* time (:func:`store_now`), never in a member's: members compare them with
each other, and only one clock makes that true.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from muster.store.reading import STORE_NOW

metadata = MetaData(
    # Constraints have names, so that a later revision can speak of them on both databases.
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s",
    }
)


class _JSON(TypeDecorator[Any]):
    """JSONB where it exists: comparable, and PostgreSQL checks it once, at the write."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return dialect.type_descriptor(JSON())
        # No variant of JSON: whoever has SQLite would load the whole of PostgreSQL's dialect to name it.
        from sqlalchemy.dialects.postgresql import JSONB

        return dialect.type_descriptor(JSONB())


_json = _JSON()

# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
_row_number = BigInteger().with_variant(Integer(), "sqlite")

members = Table(
    "members",
    metadata,
    Column("name", Text, primary_key=True),
    Column("member_id", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("schema_version", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("features", _json, nullable=False),
    Column("readiness", _json, nullable=False),
    Column("certificate", _json, nullable=False),
    Column("version_number", BigInteger, nullable=False, server_default="1"),
    CheckConstraint("state IN ('ready', 'draining', 'starting', 'stopping')", name="state"),
)
"""What each member says of itself; only the member writes its row, every change raises ``version_number``."""

wishes = Table(
    "wishes",
    metadata,
    Column("member", Text, primary_key=True),
    Column("wanted", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("by", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("goal", Text),
    Column("forced", Integer, nullable=False, server_default="0"),
    CheckConstraint("wanted IN ('ready', 'drain')", name="wanted"),
)
"""What somebody wants of a member; no row means ``ready``. A wish may stand before its member ever started.

``goal`` says what a drain is for (``maintenance``, ``removed``): members of schema 0001 know ``drain`` only, and drain.
"""

lives = Table(
    "lives",
    metadata,
    Column("member", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("since", Double, nullable=False),
    Column("version", BigInteger, nullable=False, server_default="1"),
    CheckConstraint(
        "state IN ('joining', 'warming', 'ready', 'draining', 'drained', 'maintenance', 'removed')", name="state"
    ),
)
"""Where each member stands (:mod:`muster.cluster.life`); changed by compare-and-set on ``version``."""

balancers = Table(
    "balancers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("heartbeat_at", Double, nullable=False),
    Column("content", _json, nullable=False),
)
"""What each balancer sees of the members; only the balancer writes its row."""

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", Double, nullable=False),
)
"""Who plays which role until when (:mod:`muster.store.leases`). Rows are never deleted: the epoch only grows."""

log_records = Table(
    "log_records",
    metadata,
    Column("id", _row_number, primary_key=True, autoincrement=True),
    Column("member", Text, nullable=False),
    Column("timestamp", Double, nullable=False),
    Column("level", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("backtrace", Text),
    Column("request_id", Text),
    Index(None, "timestamp"),
    Index(None, "member", "id"),
    # Without it SQLite gives the number of a deleted last row out again; a reader that remembers it misses the new one.
    sqlite_autoincrement=True,
)
"""The members' log records. ``timestamp`` is the member's clock, as in ``/logs``; ``id`` is no order of commits."""

documents = Table(
    "documents",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("content", _json, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("changed_by", Text, nullable=False),
)
"""Shared settings, each changed by compare-and-set on ``version``."""


authorities = Table(
    "authorities",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("chain_pem", Text, nullable=False),
    Column("next_serial", BigInteger, nullable=False, server_default="1"),
    Column("created_at", Double, nullable=False),
)
"""The Puppet CA: its bundle exactly as it is served. ``next_serial`` is for an export only: ours are random."""

certificates = Table(
    "certificates",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("certname", Text, nullable=False),
    Column("pem", Text, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("not_after", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("issued_at", Double, nullable=False),
    Column("issued_by", Text, nullable=False),
    CheckConstraint("state IN ('live', 'superseded', 'deleted')", name="state"),
    Index(None, "certname"),
    # Of the live ones alone: so the revision makes it. To say so here would load PostgreSQL's dialect wherever SQLite is.
    Index("certificates_live", "certname", unique=True),
)
"""Every certificate ever issued. ``serial`` is forty hexadecimal digits; ``status`` the JSON that statuses show, less its
state; one certificate of a name is live. Whether one is revoked stands in ``revocations`` alone."""

requests = Table(
    "requests",
    metadata,
    Column("certname", Text, primary_key=True),
    Column("pem", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("source", Text, nullable=False, server_default=""),
    Column("flaw", Text),
    Index(None, "source"),
    Index(None, "submitted_at"),
)
"""Certificate requests that wait. ``flaw`` says why one could not be signed (only imported ones have it).

``source`` is what its client counts as: an IPv4 address, the /64 of an IPv6 one; members of schema 0003 write the address.
"""

revocations = Table(
    "revocations",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("certname", Text),
    Column("revoked_at", Double, nullable=False),
)
"""Every revoked serial, whether its certificate is still known or not; revocation lists are made from this alone."""

crls = Table(
    "crls",
    metadata,
    Column("authority", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("own_pem", Text, nullable=False),
    Column("infra_pem", Text, nullable=False, server_default=""),
    Column("ancestors_pem", Text, nullable=False, server_default=""),
    Column("updated_at", Double, nullable=False),
    Column("next_update", Double, nullable=False),
)
"""The revocation list in force; its row is the lock under which revocations and list change together."""

autosign_hosts = Table(
    "autosign_hosts",
    metadata,
    Column("certname", Text, primary_key=True),
    Column("added_at", Double, nullable=False),
    Column("by", Text, nullable=False),
)
"""Names Foreman wants signed."""

autosign_tokens = Table(
    "autosign_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("certname", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
    Index(None, "certname"),
)
"""Tokens given out; ``used_at`` is set in the transaction that issues the certificate, so each is used once."""

audit = Table(
    "audit",
    metadata,
    Column("id", _row_number, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("event", Text, nullable=False),
    Column("certname", Text),
    Column("serial", Text),
    Column("actor", Text, nullable=False, server_default=""),
    Column("member", Text, nullable=False),
    Index(None, "certname"),
    sqlite_autoincrement=True,
)
"""What was done to certificates, by whom, on which member; written with the change itself."""

gateway_repositories = Table(
    "gateway_repositories",
    metadata,
    Column("name", Text, primary_key=True),
    Column("auth_required", Integer, nullable=False, server_default="1"),
)
"""Images that the container gateway has, as Foreman names them; ``auth_required`` is 0 where everybody may read."""

gateway_subjects = Table(
    "gateway_subjects",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    CheckConstraint("kind IN ('user', 'host')", name="kind"),
)
"""Whom the container gateway knows: users that logged in, and hosts by the UUID of their subscription."""

gateway_grants = Table(
    "gateway_grants",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    CheckConstraint("kind IN ('user', 'host')", name="kind"),
)
"""Who may read which image. Of an image that there is not it says nothing."""


content_repositories = Table(
    "content_repositories",
    metadata,
    Column("path", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("shown", Text, nullable=False, server_default=""),
    Column("shown_since", Double, nullable=False, server_default="0"),
    Column("newer_since", Double),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("asked_at", Double, nullable=False),
    Column("certificate", Text, nullable=False, server_default=""),
    Index(None, "asked_at"),
)
"""A repository that clients fetch, by its path at Pulp.

``shown`` is the digest of the ``repomd.xml`` that every member answers, empty: none; ``newer_since`` says since when some
Pulp has had something newer; ``version`` counts changes.
``certificate`` is the last that its guard let in, DER in base64; it is no secret, and members ask their Pulps with it.
"""

content_versions = Table(
    "content_versions",
    metadata,
    Column("path", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("timestamp", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("left_at", Double),
    Column("manifest", Text, nullable=False),
)
"""A version of a repository: ``digest`` is that of its ``repomd.xml``, ``manifest`` that of the list of all it consists of.

``left_at`` is when it ceased to be shown.
"""

content_reports = Table(
    "content_reports",
    metadata,
    Column("path", Text, primary_key=True),
    Column("member", Text, primary_key=True),
    Column("reached", Integer, nullable=False),
    Column("carried", Text, nullable=False, server_default=""),
    Column("carried_since", Double, nullable=False, server_default="0"),
    Column("staged", Text, nullable=False, server_default=""),
    Column("unreached_since", Double),
    Column("trouble", Text, nullable=False, server_default=""),
    Column("told_at", Double, nullable=False),
)
"""What a member says of a repository: what its own Pulp carries, and which versions lie whole on its disk.

``staged`` are digests, separated by a space. A member writes its own rows alone.
"""

content_publications = Table(
    "content_publications",
    metadata,
    Column("repository", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("parts", Text, nullable=False),
    Column("origin", Text, nullable=False, server_default=""),
    Column("packages", BigInteger, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("of", Text, nullable=False, server_default=""),
    Column("made_at", Double, nullable=False),
    Column("published_at", Double, nullable=False),
)
"""A state of a mirrored repository. ``parts`` is JSON: the digest of each part's manifest by the part's path.

A row never changes but for ``published_at``: when somebody last came to the same state, which says how new it is.
"""

content_distributions = Table(
    "content_distributions",
    metadata,
    Column("path", Text, primary_key=True),
    Column("environment", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("part", Text, nullable=False, server_default=""),
    Column("publication", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Index("content_distributions_repository", "repository"),
)
"""What clients of an environment are to get at a path; changed by compare-and-set on ``version``."""

content_promotions = Table(
    "content_promotions",
    metadata,
    Column("id", _row_number, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("by", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("publication", Text, nullable=False),
    Column("previous", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
"""What environments had of repositories, one after the other; written with the change itself. Empty: nothing."""

content_jobs = Table(
    "content_jobs",
    metadata,
    Column("id", _row_number, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("repository", Text, nullable=False, server_default=""),
    Column("member", Text, nullable=False, server_default=""),
    Column("publication", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("holder", Text, nullable=False, server_default=""),
    Column("done", BigInteger, nullable=False, server_default="0"),
    Column("of", BigInteger, nullable=False, server_default="0"),
    Column("sentence", Text, nullable=False, server_default=""),
    Column("result", Text, nullable=False, server_default="{}"),
    Column("is_unwanted", Integer, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    CheckConstraint("state IN ('asked', 'running', 'done', 'failed', 'cancelled')", name="state"),
    Index("content_jobs_state", "state"),
    # Of those alone that are asked for or run, and wanted: so the revision makes it, as that of ``certificates``.
    Index("content_jobs_open", "kind", "repository", "member", "publication", unique=True),
    sqlite_autoincrement=True,
)
"""Work on what is mirrored or steered; ``tries`` counts how often somebody took it. One of a kind is open at a time."""

content_stages = Table(
    "content_stages",
    metadata,
    Column("repository", Text, primary_key=True),
    Column("job", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
)
"""How far each Pulp is with the next state of a steered repository, as JSON; who has the role writes it."""

content_flips = Table(
    "content_flips",
    metadata,
    Column("repository", Text, primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("packages", BigInteger, nullable=False, server_default="0"),
    Column("pulps", Text, nullable=False),
    Column("of", Integer, nullable=False, server_default="0"),
    Column("job", BigInteger, nullable=False, server_default="0"),
    Column("by", Text, nullable=False, server_default=""),
    Column("at", Double, nullable=False),
)
"""To what the Pulps of a steered repository are turned: the newest row counts. ``pulps`` is JSON; a row never changes."""

content_followers = Table(
    "content_followers",
    metadata,
    Column("repository", Text, primary_key=True),
    Column("pulp", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("why", Text, nullable=False, server_default=""),
    Column("since", Double, nullable=False),
)
"""To which of these a Pulp was turned at last, and why that is not the newest; for who looks, nothing depends on it."""


registration_scripts = Table(
    "registration_scripts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("claimed_until", Double, nullable=False),
    Column("ends_at", Double, nullable=False),
    Column("script", LargeBinary),
)
"""Scripts that register hosts, encrypted, good until ``ends_at``; without one, ``holder`` asks Foreman for it meanwhile."""

consumer_packages = Table(
    "consumer_packages",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("rpm", Text, nullable=False),
    Column("deb", Text, nullable=False),
    Column("following", BigInteger, nullable=False),
    Column("by", Text, nullable=False, server_default=""),
    Column("at", Double, nullable=False),
)
"""Packages by which hosts trust the cluster, in base64, by the number in their version; ``following`` is the next one's."""

consumer_followers = Table(
    "consumer_followers",
    metadata,
    Column("member", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
)
"""What each member would make such a package of, and the number of the last package of that which it knew."""

dhcp_claims = Table(
    "dhcp_claims",
    metadata,
    Column("address", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("mac", Text, nullable=False, server_default=""),
    Column("holder", Text, nullable=False, server_default=""),
    Column("at", Double, nullable=False),
    Column("until", Double, nullable=False),
    CheckConstraint("state IN ('probing', 'free', 'answered', 'promised', 'reserved')", name="state"),
    Index(None, "until"),
)
"""IPv4 addresses, as numbers, that no other member may offer before ``until``, and why; then a row is as good as none."""

dhcp_changes = Table(
    "dhcp_changes",
    metadata,
    Column("key", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
)

ipam_promises = Table(
    "ipam_promises",
    metadata,
    Column("space", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("subnet", Text, nullable=False),
    Column("mac", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),
    Column("until", Double, nullable=False),
    Column("holder", Text, nullable=False, server_default=""),
    Column("held_until", Double, nullable=False, server_default="0"),
    CheckConstraint("state IN ('promised', 'settled')", name="state"),
    Index(None, "until"),
    Index(None, "space", "mac"),
)

ipam_addresses = Table(
    "ipam_addresses",
    metadata,
    Column("space", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("subnet", Text, nullable=False),
    Column("mac", Text, nullable=False, server_default=""),
    Column("at", Double, nullable=False),
)
"""Addresses and hardware addresses whose reservation is being changed, each by one call at a time."""


# What is below a directory is found by comparing bytes, whatever the database's language.
_PATH = Text().with_variant(Text(collation="C"), "postgresql")

netboot_tree = Table(
    "netboot_tree",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("forgotten", BigInteger, nullable=False, server_default="0"),
)
"""One row, 1: which version the tree of boot files has; what went away until ``forgotten`` is not known any more."""

netboot_entries = Table(
    "netboot_entries",
    metadata,
    Column("path", _PATH, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("digest", Text, nullable=False, server_default=""),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("target", Text, nullable=False, server_default=""),
    Column("version", BigInteger, nullable=False),
    Column("modified_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("origin", Text, nullable=False, server_default=""),
    Column("etag", Text, nullable=False, server_default=""),
    CheckConstraint("kind IN ('file', 'link', 'gone')", name="kind"),
    Index(None, "version"),
    Index(None, "digest"),
)
"""What stands at a path of that tree since which of its versions; for a while also what stands there no more."""

netboot_blobs = Table(
    "netboot_blobs",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("content", Text, nullable=False),
    Column("at", Double, nullable=False),
)
"""The bytes of small boot files, in base64, by their SHA-256; larger ones lie on members' disks only."""

netboot_members = Table(
    "netboot_members",
    metadata,
    Column("member", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column("fenced", BigInteger, nullable=False, server_default="0"),
    Column("lacks", Text, nullable=False, server_default="[]"),
    Column("trouble", Text, nullable=False, server_default=""),
    Column("at", Double, nullable=False),
)
"""Which version of the tree lies on each member's disk, but for the paths in ``lacks`` (JSON), whose bytes are on their way;
below ``fenced`` the member takes no clients."""

netboot_fetches = Table(
    "netboot_fetches",
    metadata,
    Column("path", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("member", Text, nullable=False, server_default=""),
    Column("holder", Text, nullable=False, server_default=""),
    Column("done_bytes", BigInteger, nullable=False, server_default="0"),
    Column("total_bytes", BigInteger),
    Column("why", Text, nullable=False, server_default=""),
    Column("about", Text, nullable=False, server_default=""),
    Column("asked_at", Double, nullable=False),
    Column("started_at", Double),
    Column("beat_at", Double),
    Column("ended_at", Double),
    CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name="state"),
)
"""Boot files that are being fetched, each by ``holder``, and how that ended lately."""


boot_events = Table(
    "boot_events",
    metadata,
    Column("id", _row_number, primary_key=True, autoincrement=True),
    Column("mac", Text, nullable=False, server_default=""),
    Column("address", Text, nullable=False, server_default=""),
    Column("at", Double, nullable=False),
    Column("member", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default="{}"),
    Index("boot_events_mac", "mac", "id"),
    Index("boot_events_address", "address", "id"),
    Index("boot_events_at", "at"),
    sqlite_autoincrement=True,
)
"""What members saw of machines that boot, for some days; where the address alone was known ``mac`` is empty."""

arf_uploads = Table(
    "arf_uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("cname", Text, nullable=False),
    Column("policy", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("reported_at", BigInteger),
    Column("state", Text, nullable=False),
    Column("foreman_id", Text, nullable=False, server_default=""),
    Column("holder", Text, nullable=False, server_default=""),
    Column("claimed_until", Double, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Double, nullable=False, server_default="0"),
    Column("why", Text, nullable=False, server_default=""),
    Column("accepted_at", Double, nullable=False),
    Column("ended_at", Double),
    CheckConstraint("state IN ('arriving', 'waiting', 'sent', 'refused')", name="state"),
    Index("arf_uploads_cname", "cname", "policy", "digest", unique=True),
    Index("arf_uploads_reported", "cname", "reported_at", unique=True),
    Index("arf_uploads_state", "state", "due_at"),
)
"""Compliance reports of hosts. Until the whole of one has arrived its id stands for its digest, and it has no time."""

arf_chunks = Table(
    "arf_chunks",
    metadata,
    Column("upload", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", Text, nullable=False),
)
"""Their bytes as they were sent, in base64, in pieces of a MiB."""

group_changes = Table(
    "group_changes",
    metadata,
    Column("group_name", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("operation", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("until", Double, nullable=False),
)
"""Changes that ``holder`` carries out at all providers of a group, or at its leader; JSON in ``arguments``."""

group_repairs = Table(
    "group_repairs",
    metadata,
    Column("id", _row_number, primary_key=True, autoincrement=True),
    Column("group_name", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_at", Double, nullable=False),
    Column("stuck", Integer, nullable=False, server_default="0"),
    Column("why", Text, nullable=False, server_default=""),
    Index(None, "group_name", "provider", "id"),
    # The order in which a provider is to have them: no number comes twice.
    sqlite_autoincrement=True,
)
"""Changes that a provider of a group has not had; with ``stuck`` it refused them."""

group_leaders = Table(
    "group_leaders",
    metadata,
    Column("group_name", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("since", Double, nullable=False),
    Column("why", Text, nullable=False, server_default=""),
)
"""Which provider of a group all members ask, how often that changed, and why it did lately."""


class store_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """The store's clock as a SQL expression: seconds since the epoch at the moment the row is touched.

    SQLite knows milliseconds, PostgreSQL microseconds. It can step back when somebody sets that host's clock back.
    """

    type = Double()
    inherit_cache = True


@compiles(store_now, "postgresql")
def _store_now_of_postgresql(_element: store_now, _compiler: Any, **_: Any) -> str:
    return STORE_NOW["postgresql"]


@compiles(store_now, "sqlite")
def _store_now_of_sqlite(_element: store_now, _compiler: Any, **_: Any) -> str:
    return STORE_NOW["sqlite"]
