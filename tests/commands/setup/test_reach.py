"""`init` helps a new machine for copies to be usable: its key, a login, a folder."""

import getpass
import subprocess
import tomllib

import pytest
from person import Person
from sshd import make_key

FLAGS = "--keep 5 --at never --notify none"
HOME_OF_ITS_OWN = 'mount --bind "$0" /etc/passwd && exec "$@"'


def with_home(home, passwd):
    """Return the words before a program for which this user's home is another folder; or skip."""
    with open("/etc/passwd") as stream:
        lines = [line.rstrip("\n").split(":") for line in stream]
    for fields in lines:
        if fields[0] == getpass.getuser():
            fields[5] = str(home)
    passwd.write_text("".join(f"{':'.join(fields)}\n" for fields in lines))
    passwd.chmod(0o644)
    own = ("unshare", "--mount", "--propagation", "private", "sh", "-c", HOME_OF_ITS_OWN, passwd)
    if subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace: needs root")
    return own


@pytest.fixture
def machine(little_stack, start_sshd, tmp_path):
    """A machine whose user has an alias for a server, and no key that it takes yet."""
    nas = start_sshd("nas", before=with_home(tmp_path / "nas", tmp_path / "passwd there"))
    home = little_stack.settings.parent
    allowed = nas.folder / "user_key.pub"
    allowed.write_text("")
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh/config").write_text(
        f"Host nas\n  HostName 127.0.0.1\n  Port {nas.port}\n  User {getpass.getuser()}\n"
    )
    little_stack.before = with_home(home, tmp_path / "passwd here")
    little_stack.settings.unlink()
    little_stack.environment |= {"TERM": "dumb"}
    little_stack.nas, little_stack.allowed, little_stack.home = nas, allowed, home
    return little_stack


def person(stack, line):
    return Person(stack.words(line), stack.environment)


def test_from_no_key_to_a_first_copy(machine):
    """The host key is compared, a key is made and put there, the folder is made: each on a yes."""
    # ssh-copy-id would ask for a password here, which this sshd does not take.
    machine.tool(
        "ssh-copy-id", f'echo "to $*"; cat "$HOME/.ssh/id_ed25519.pub" >> {machine.allowed}'
    )
    asks = person(machine, f"init --stack {machine.folder} {FLAGS}")
    asks.sees("nas, over SSH (an alias of ~/.ssh/config)")
    asks.sees("Number [")
    number = next(each for each in asks.shown.splitlines() if "nas, over" in each).split()[0]
    asks.types(number)
    asks.sees("[backups/iotstack]: ")
    asks.types("copies of pi")
    asks.sees("has the host key ssh-ed25519 SHA256:")
    asks.sees("Does the machine itself print the same key? [Y/n] ")
    asks.types("y")
    asks.sees("\n  ssh-keygen -t ed25519 -N '' -f ~/.ssh/id_ed25519 && ssh-copy-id nas\n")
    asks.sees("Run this now? [Y/n] ")
    asks.types("y")
    asks.sees("to nas")
    asks.sees("""\n  ssh nas mkdir -p "'copies of pi'"\n""")
    asks.sees("Run this now? [Y/n] ")
    asks.types("y")
    asks.sees("The vault nas answers.")
    asks.sees("Write it? [Y/n] ")
    asks.types("y")
    asks.sees("Make the first backup now? [Y/n] ")
    asks.types("y")
    assert asks.ends(120) == 0
    row = tomllib.loads(machine.settings.read_text())["vaults"][0]
    assert (row["host"], row["folder"], row["kind"]) == ("nas", "copies of pi", "ssh")
    assert list((machine.nas.folder / "copies of pi").glob("*.manifest.json"))


def test_a_command_that_fails_is_offered_once(machine):
    """As ssh-copy-id itself, whose login is refused; the settings can be written all the same."""
    make_key(machine.home / ".ssh/id_ed25519")
    known = machine.nas.known_hosts.read_text()
    (machine.home / ".ssh/known_hosts").write_text(known)
    asks = person(machine, f"init --stack {machine.folder} --copies ssh:nas:x {FLAGS}")
    asks.sees("refused the login")
    asks.sees("\n  ssh-copy-id nas\n")
    asks.sees("Run this now? [Y/n] ")
    asks.types("y")
    asks.sees("ssh-copy-id nas failed, exit code 1.")
    asks.sees("The vault nas cannot be used yet.")
    asks.sees("Write it? [Y/n] ")
    asks.types("y")
    asks.sees("vault nas: ")
    assert asks.ends() == 1
    assert "Make the first backup" not in asks.shown
    assert tomllib.loads(machine.settings.read_text())["vaults"][0]["name"] == "nas"


def test_without_a_terminal_the_commands_are_shown(machine):
    """None of them is run; doctor says why they are needed, and the exit code is its own."""
    known = machine.nas.known_hosts.read_text()
    (machine.home / ".ssh/known_hosts").write_text(known)
    found = machine.run(f"init --stack {machine.folder} --copies ssh:nas:x {FLAGS}")
    assert found.returncode == 1
    shown = "ssh-keygen -t ed25519 -N '' -f ~/.ssh/id_ed25519 && ssh-copy-id nas"
    assert f"To make the vault nas usable: {shown}\n" in found.stdout
    assert found.stdout.count("refused the login") == 1
    assert found.stderr == ""
    assert not (machine.home / ".ssh/id_ed25519").exists()


def test_another_key_than_before_is_not_offered(machine):
    """That is for a person to find out: it may be another machine."""
    make_key(machine.home / ".ssh/id_ed25519")
    other = make_key(machine.home / "other")
    public = (machine.home / f"{other.name}.pub").read_text()
    (machine.home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{machine.nas.port} {public}")
    asks = person(machine, f"init --stack {machine.folder} --copies ssh:nas:x {FLAGS}")
    asks.sees("has a different host key than the known one")
    asks.sees("Write it? [Y/n] ")
    assert "Run this now?" not in asks.shown
    asks.types("n")
    assert asks.ends() == 13
