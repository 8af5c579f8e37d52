"""Makes a domain, with whom members log in as and where they may make accounts; for the Python that Samba's own tools have.

Run by ``tests/servers/samba.py`` with one argument, JSON.
"""

import json
import sys

from samba.auth import system_session  # type: ignore[import-not-found]
from samba.netcmd.main import cmd_sambatool  # type: ignore[import-not-found]
from samba.param import LoadParm  # type: ignore[import-not-found]
from samba.samdb import SamDB  # type: ignore[import-not-found]

COMPUTER = "bf967a86-0de6-11d0-a285-00aa003049e2"


def main() -> None:
    wanted = json.loads(sys.argv[1])
    directory, base = wanted["directory"], wanted["base"]
    conf, database = f"{directory}/etc/smb.conf", f"{directory}/private/sam.ldb"

    def tool(*words: str) -> None:
        if cmd_sambatool()._run("samba-tool", *words):
            sys.exit(f"samba-tool {' '.join(words[:3])} failed")

    tool(
        "domain", "provision", f"--realm={wanted['realm']}", f"--domain={wanted['domain']}", "--server-role=dc",
        "--dns-backend=NONE", f"--adminpass={wanted['password']}", f"--targetdir={directory}", "--host-name=dc1",
        f"--host-ip={wanted['address']}", *(f"--option={option}" for option in wanted["options"]),
    )  # fmt: skip
    here = ("-s", conf, "-H", database)
    for user in ("muster", "ipa", "nobody", "former"):
        tool("user", "create", user, f"{wanted['password']}-{user}", *here)
    tool("ou", "create", f"OU=Linux,{base}", *here)
    for account, names in wanted["names"].items():
        for name in names:
            tool("spn", "add", name, account, *here)
    parameters = LoadParm()
    parameters.load(conf)
    found = SamDB(url=database, session_info=system_session(parameters), lp=parameters)
    sid = found.schema_format_value(
        "objectSid", found.search(base, expression="(sAMAccountName=muster)", attrs=["objectSid"])[0]["objectSid"][0]
    ).decode()
    # As docs/admin/realm.md has it done: make and delete computers there, and everything about those.
    rights = f"(OA;CI;CCDC;{COMPUTER};;{sid})(OA;CIIO;RPWPCRSDDTLCRC;;{COMPUTER};{sid})"
    tool("dsacl", "set", f"--objectdn=OU=Linux,{base}", f"--sddl={rights}", *here)
    for principal in ("muster", "nobody", "former", *wanted["keytabs"]):
        file = f"{directory}/{principal.partition('/')[0].lower()}.keytab"
        tool("domain", "exportkeytab", file, f"--principal={principal}", "-s", conf)
    tool("user", "setpassword", "former", f"--newpassword={wanted['password']}-later", *here)


main()
