"""What compose reads of a stack, and what its services mount: from the files alone."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from iotstack_invoke.hosts.local import LocalHost
from iotstack_invoke.hosts.ssh import SshHost
from iotstack_invoke.hosts.ssh_connection import Login
from iotstack_invoke.stack.compose_files import Given, compose_reads
from iotstack_invoke.stack.compose_text import NotRead, documents, filled, variables


class Counting(LocalHost):
    """This machine, and how often it was asked."""

    asked = 0

    def run(self, command, heard=None):
        self.asked += 1
        return super().run(command, heard)


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A function that writes files into a stack's folder and returns what compose reads of it."""
    folder = tmp_path / "IOTstack"
    folder.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [each for each in os.environ if each.startswith("COMPOSE_")]:
        monkeypatch.delenv(name)

    def reads(files):
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return compose_reads(LocalHost(str(folder)), str(folder), ())

    reads.folder = folder
    return reads


def mounts(reads, name="one"):
    service = next(each for each in reads.services if each.name == name)
    return [(m.source, m.target, m.writable, m.volume_name) for m in service.mounts]


def test_a_folder_without_compose_file_has_nothing_to_read(stack):
    """Containers of `docker run` have no files that compose reads."""
    found = stack({"notes.txt": "x"})
    assert (found.inside, found.missing, found.services, found.unread) == ((), (), (), ())


def test_files_of_a_service_are_found(stack):
    """Files of variables and labels, secrets, configs and a credential, in each form."""
    found = stack(
        {
            "docker-compose.yml": """
services:
  one:
    image: a
    env_file: [env/one.env, {path: env/gone.env, required: false}, {path: env/lost.env}]
    label_file: labels
    secrets: [pw, {source: gone}]
    configs: [{source: conf, target: /etc/x}]
  two: {image: b, env_file: two.vars, label_file: [labels]}
secrets:
  pw: {file: ./secrets/pw}
  gone: {file: ./secrets/gone}
  unused: {file: ./secrets/unused}
  outer: {external: true}
configs:
  conf: {file: conf/x.conf}
""",
            "env/one.env": "A=1",
            "two.vars": "",
            "labels": "",
            "secrets/pw": "hidden",
            "conf/x.conf": "",
        }
    )
    assert found.inside == (
        "conf/x.conf",
        "docker-compose.yml",
        "env/one.env",
        "labels",
        "secrets/pw",
        "two.vars",
    )
    assert found.missing == ("env/lost.env", "secrets/gone")
    assert (found.outside, found.unread) == ((), ())


def test_what_compose_watches_in_the_stack_is_found(stack):
    """Sources of the owner's; not the whole folder, nor what lies elsewhere or is not there."""
    text = "services:\n  one: {image: a, develop: {watch: [WATCHED]}}\n"
    paths = (".", "./src", "../lib", "gone", "${PWD}/one.py", "/usr")
    watched = ", ".join(f"{{action: sync, path: '{each}', target: /x}}" for each in paths)
    files = {"src/a": "", "one.py": "", "../lib/b": ""}
    found = stack({"docker-compose.yml": text.replace("WATCHED", watched), **files})
    assert found.inside == ("docker-compose.yml", "one.py", "src")
    assert (found.outside, found.missing, found.unread) == ((), (), ())


def test_build_contexts_are_found(stack):
    """A context, its Dockerfile beside or beyond it, further contexts; none of git or an image."""
    found = stack(
        {
            "docker-compose.yml": """
services:
  one: {build: ./.templates/mosquitto/.}
  two: {build: {context: build/two, dockerfile: ../docker/Two}}
  three: {build: https://github.com/x/y.git#main:sub}
  four: {build: {context: git@github.com:x/y.git, dockerfile: Nowhere}}
  five:
    build:
      context: lost
      additional_contexts: [more=./extra, image=docker-image://alpine, other=service:one]
  six: {build: {context: build/six, dockerfile_inline: FROM a, additional_contexts: {x: ../shop}}}
  seven: {build: {context: build/seven}}
  eight: {image: x, build: }
""",
            ".templates/mosquitto/Dockerfile": "",
            "build/two/x": "",
            "build/docker/Two": "",
            "build/six/x": "",
            "build/seven/x": "",
            "extra/x": "",
            "../shop/x": "",
        }
    )
    assert found.inside == (
        ".templates/mosquitto",
        "build/docker/Two",
        "build/seven",
        "build/six",
        "build/two",
        "docker-compose.yml",
        "extra",
    )
    assert found.outside == (str(stack.folder.parent / "shop"),)
    assert found.missing == ("build/seven/Dockerfile", "lost")


def test_the_stack_as_context_hides_no_other_file(stack):
    """A build that sends the whole folder names the folder and the rest."""
    found = stack(
        {
            "docker-compose.yml": "services: {one: {build: {dockerfile: docker/D}, env_file: e/x}}",
            "docker/D": "",
            "e/x": "",
        }
    )
    assert found.inside == (".", "docker-compose.yml", "docker/D", "e/x")


def test_includes_have_a_folder_and_variables_of_their_own(stack):
    """Short and long form, several files, nested; paths count from the included project."""
    found = stack(
        {
            "docker-compose.yml": """
include:
  - parts/mqtt/compose.yaml
  - path: [parts/db.yaml, ./over.yaml]
    project_directory: db
    env_file: db.env
  - oci://docker.io/x/y
services: {one: {image: a}}
""",
            "db.env": "CONF=mine.env",
            "parts/mqtt/compose.yaml": """
include: [deeper/x.yaml]
services: {mqtt: {image: m, env_file: "${FILE}", volumes: ["./data:/data", "keep:/keep"]}}
volumes: {keep: }
""",
            "parts/mqtt/.env": "FILE=own.env",
            "parts/mqtt/own.env": "",
            "parts/mqtt/deeper/x.yaml": "services: {deep: {image: d, build: .}}",
            "parts/mqtt/deeper/Dockerfile": "",
            "parts/db.yaml": "services: {db: {image: x, env_file: '${CONF}'}}",
            "over.yaml": "services: {db: {container_name: database, volumes: ['./d:/d']}}",
            "db/mine.env": "",
        }
    )
    assert found.inside == (
        "db.env",
        "db/mine.env",
        "docker-compose.yml",
        "over.yaml",
        "parts/db.yaml",
        "parts/mqtt/.env",
        "parts/mqtt/compose.yaml",
        "parts/mqtt/deeper",
        "parts/mqtt/own.env",
    )
    assert found.missing == ()
    assert found.unread == ("oci://docker.io/x/y is not on this machine, so it was not read.",)
    assert mounts(found, "mqtt") == [
        (f"{stack.folder}/parts/mqtt/data", "/data", True, ""),
        ("", "/keep", True, "iotstack_keep"),
    ]
    assert mounts(found, "db") == [(f"{stack.folder}/db/d", "/d", True, "")]
    assert next(each for each in found.services if each.name == "db").container_name == "database"


def test_an_extended_service_brings_its_files(stack):
    """From this file and from others; paths count from the file that says them."""
    found = stack(
        {
            "docker-compose.yml": """
services:
  one: {extends: {file: common/base.yml, service: base}, volumes: ["./mine:/data"]}
  two: {extends: one, container_name: second}
""",
            "common/base.yml": """
services:
  base: {extends: {file: deeper/x.yml, service: root}, env_file: base.env}
  unused: {image: z, env_file: nothing.env}
""",
            "common/base.env": "",
            "common/deeper/x.yml": """
services:
  root: {image: r, build: ctx, volumes: ["./a:/data", "./b:/b:ro"]}
""",
            "common/deeper/ctx/Dockerfile": "",
        }
    )
    assert found.inside == (
        "common/base.env",
        "common/base.yml",
        "common/deeper/ctx",
        "common/deeper/x.yml",
        "docker-compose.yml",
    )
    assert (found.missing, found.unread) == ((), ())
    for name in ("one", "two"):
        assert mounts(found, name) == [
            (f"{stack.folder}/mine", "/data", True, ""),
            (f"{stack.folder}/common/deeper/b", "/b", False, ""),
        ]


@pytest.mark.parametrize(
    ("env", "missing"),
    [
        ("", ("always.vars",)),
        ("COMPOSE_PROFILES=x, debug", ("always.vars", "ctx", "debug.vars", "pw")),
        ("COMPOSE_PROFILES=*", ("always.vars", "ctx", "debug.vars", "pw")),
    ],
)
def test_what_only_a_profile_needs_is_missing_if_that_is_on(stack, env, missing):
    """Compose starts the others without it; an extended service brings its profiles along."""
    text = """
services:
  one: {image: a, env_file: always.vars}
  two: {build: ctx, env_file: [debug.vars, there.vars], secrets: [pw], profiles: [debug]}
  three: {extends: two}
secrets: {pw: {file: pw}}
"""
    found = stack({"docker-compose.yml": text, "there.vars": "", ".env": env})
    assert found.missing == missing
    assert found.inside == (".env", "docker-compose.yml", "there.vars")


def test_what_a_build_reads_beside_its_context(stack, tmp_path):
    """What its Dockerfile ignores, and the keys that it logs in with, be they there or not."""
    found = stack(
        {
            "docker-compose.yml": """
services:
  one:
    build: {context: ctx, dockerfile: ../d/One, ssh: [default, "a=keys/a,keys/b", "c=~/c"]}
  two: {build: {context: ctx, ssh: {d: /run/gone, e: $AGENT}}}
""",
            "ctx/Dockerfile": "",
            "d/One": "",
            "d/One.dockerignore": "",
            "keys/a": "",
            "keys/b": "",
            "../home/c": "",
        }
    )
    assert found.inside == (
        "ctx",
        "d/One",
        "d/One.dockerignore",
        "docker-compose.yml",
        "keys/a",
        "keys/b",
    )
    assert found.outside == (f"{tmp_path}/home/c",)
    assert (found.missing, found.unread) == ((), ())


def test_devices_and_what_is_far_are_no_files_of_the_stack(stack):
    """Nobody packs /dev/null; a service of another machine's file is told, not missing."""
    found = stack(
        {
            "docker-compose.yml": """
include: [{path: a.yaml, env_file: /dev/null}]
services:
  one: {image: a, env_file: /dev/null, secrets: [s]}
  two: {image: a, extends: {file: "https://me:hunter2@x.org/y.yaml", service: z}}
secrets: {s: {file: /dev/zero}}
""",
            "a.yaml": "services: {three: {image: b}}",
            ".env/x": "",
        }
    )
    assert found.inside == ("a.yaml", "docker-compose.yml")
    assert (found.outside, found.missing) == ((), ())
    assert found.unread == ("https://x.org/y.yaml is not on this machine, so it was not read.",)


def test_paths_of_any_length_are_asked_for(stack):
    """More than one command takes, and one that no system takes, which is told."""
    deep = "/".join(["it's" * 20] * 12)
    names = [f"{deep}/{n}" for n in range(190)]
    listed = json.dumps([*names, "x" * 5000, "y" * 200_000, "nul\0"])
    found = stack(
        {
            "docker-compose.yml": f"services: {{one: {{image: a, env_file: {listed}}}}}",
            **dict.fromkeys(names, ""),
        }
    )
    assert set(found.inside) == {"docker-compose.yml", *names}
    assert (found.outside, found.missing) == ((), ())
    assert found.unread == ("The compose files have a path that cannot exist; it was ignored.",)


@pytest.mark.parametrize(
    "text",
    [
        "include: [docker-compose.yml]\nservices: {one: {image: a}}",
        "services: {one: {image: a, extends: one}}",
        "services: {one: {image: a, extends: two}, two: {extends: one}}",
        "services: {one: {image: a, extends: {file: docker-compose.yml, service: one}}}",
    ],
)
def test_a_circle_ends(stack, text):
    """Files and services that name each other are told, and the rest is found."""
    found = stack({"docker-compose.yml": text})
    assert found.inside == ("docker-compose.yml",)
    assert len(found.unread) >= 1
    assert [each.name for each in found.services][:1] == ["one"]


def test_mounts_in_each_form(stack, tmp_path):
    """Short and long, home, read-only, volumes by the name that docker gives them."""
    found = stack(
        {
            "docker-compose.yml": """
services:
  one:
    image: a
    volumes:
      - ./volumes/x:/x
      - /etc/localtime:/etc/localtime:ro
      - ~/pictures:/pictures:rw,z
      - data:/data
      - /nameless
      - {type: bind, source: conf, target: /conf, read_only: true}
      - {type: volume, source: named, target: /named}
      - {type: tmpfs, target: /tmp}
      - outer:/outer
      - old:/old:ro
      - usb:/usb
volumes:
  data:
  named: {name: "my-${WHO:-data}"}
  outer: {external: true}
  old: {external: {name: older}}
  usb: {driver: local, driver_opts: {type: none, o: bind, device: /media/usb}}
"""
        }
    )
    assert mounts(found) == [
        (f"{stack.folder}/volumes/x", "/x", True, ""),
        ("/etc/localtime", "/etc/localtime", False, ""),
        (f"{tmp_path}/home/pictures", "/pictures", True, ""),
        ("", "/data", True, "iotstack_data"),
        ("", "/nameless", True, ""),
        (f"{stack.folder}/conf", "/conf", False, ""),
        ("", "/named", True, "my-data"),
        ("", "/outer", True, "outer"),
        ("", "/old", False, "older"),
        ("/media/usb", "/usb", True, "iotstack_usb"),
    ]


def test_what_a_volume_is_made_of(stack):
    """What an override says of it comes over the rest; a folder counts from that of the stack."""
    found = stack(
        {
            "docker-compose.yml": """
services:
  one: {image: a, volumes: ["data:/data", "share:/share", "plain:/plain", "far:/far"]}
volumes:
  data: {driver_opts: {type: none, o: "bind,ro", device: ./own}}
  share: {driver_opts: {type: nfs, o: addr=nas, device: ":/x"}}
  plain:
  far: {driver: rclone}
  unused: {driver_opts: {type: none, o: bind, device: "${NOT_SET}/x"}}
""",
            "docker-compose.override.yml": """
volumes:
  data: {name: mine, driver_opts: {o: bind}}
  share:
""",
        }
    )
    assert found.unread == ()
    assert mounts(found)[0] == (f"{stack.folder}/own", "/data", True, "mine")
    told = [(e.name, e.key, e.driver, e.filesystem, e.device) for e in found.volumes]
    assert told == [
        ("mine", "data", "local", "none", f"{stack.folder}/own"),
        ("iotstack_far", "far", "rclone", "", ""),
        ("iotstack_plain", "plain", "local", "", ""),
        ("iotstack_share", "share", "local", "nfs", ":/x"),
    ]


@pytest.mark.parametrize(
    ("env", "top", "name"),
    [
        ("", "", "iotstack"),
        ("COMPOSE_PROJECT_NAME=chosen", "name: other", "chosen"),
        ("WHO=x", "name: my-${WHO}", "my-x"),
    ],
)
def test_the_project_has_the_name_that_compose_gives_it(stack, env, top, name):
    """`.env` comes before the file, the file before the folder's name."""
    text = f"{top}\nservices: {{one: {{image: a, volumes: ['d:/d']}}}}\nvolumes: {{d: }}\n"
    found = stack({"docker-compose.yml": text, ".env": env})
    assert mounts(found) == [("", "/d", True, f"{name}_d")]


def test_overrides_and_files_named_in_env(stack):
    """The override beside the compose file; with COMPOSE_FILE those that it names, in order."""
    files = {
        "docker-compose.yml": "services: {one: {image: a, volumes: ['./a:/d'], env_file: a.vars}}",
        "docker-compose.override.yml": "services: {one: {image: b, volumes: ['./b:/d']}}",
        "more/c.yml": "services: {one: {image: c, env_file: c.vars}, two: {image: d}}",
        "a.vars": "",
        "c.vars": "",
    }
    found = stack(files)
    assert found.inside == ("a.vars", "docker-compose.override.yml", "docker-compose.yml")
    assert mounts(found) == [(f"{stack.folder}/b", "/d", True, "")]
    found = stack(
        {".env": "COMPOSE_PATH_SEPARATOR=,\nCOMPOSE_FILE=docker-compose.yml,more/c.yml,no.yml"}
    )
    assert found.inside == (".env", "a.vars", "c.vars", "docker-compose.yml", "more/c.yml")
    assert found.missing == ("no.yml",)
    assert [(each.name, each.image) for each in found.services] == [("one", "c"), ("two", "d")]


def test_what_an_override_takes_away_is_not_missing(stack):
    """`!reset` and `!override` say what no longer counts; other tags stop nobody."""
    found = stack(
        {
            "compose.yaml": """
services:
  one: {image: a, env_file: gone.env, build: {context: gone}, volumes: ["./a:/a"]}
  two: {image: a, env_file: !mine [b.env]}
""",
            "compose.override.yaml": """
services:
  one: {env_file: !reset [], build: !reset null, volumes: !override ["./b:/b"]}
""",
            "b.env": "",
        }
    )
    assert (found.missing, found.unread) == ((), ())
    assert "b.env" in found.inside
    assert mounts(found) == [(f"{stack.folder}/b", "/b", True, "")]


def test_anchors_merge_keys_and_keys_said_twice(stack):
    """As the parsers of compose read them: one's own word before what is merged."""
    found = stack(
        {
            "docker-compose.yml": """
x-base: &base {image: a, env_file: base.vars}
x-more: &more {volumes: ["./m:/m"]}
services:
  one: {<<: [*base, *more], image: mine}
  two:
    <<: *base
    env_file: first.vars
    env_file: second.vars
""",
            "base.vars": "",
            "second.vars": "",
        }
    )
    assert found.inside == ("base.vars", "docker-compose.yml", "second.vars")
    assert (found.missing, found.unread) == ((), ())
    assert mounts(found) == [(f"{stack.folder}/m", "/m", True, "")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services:\n  one: {image: a}\n b: c\n", "line 3: not valid YAML"),
        ("a: *hunter2", "line 1: not valid YAML"),
        ("services: {one: {image: \x01}}", "not valid YAML"),
        ('services: {one: {image: "\\UFFFFFFFF"}}', "not valid YAML"),
        ("[" * 3000, "nest"),
        ("- " * 3000 + "x", "nest"),
        ("x: " + "y" * (1 << 20), "larger than 1 MiB"),
        ("just words", "it is not a mapping"),
        (
            "x0: &x0 {image: a}\n"
            + "".join(
                f"x{n}: &x{n} {{<<: [{','.join([f'*x{n - 1}'] * 10)}]}}\n" for n in range(1, 10)
            )
            + "services: {one: *x9}",
            "more than 200000 entries",
        ),
        (
            "x0: &x0 [./a:/a]\n"
            + "".join(f"x{n}: &x{n} [{','.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 10))
            + "services: {one: {image: a, volumes: *x9}}",
            "",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_told(stack, text, said):
    """By its name and line, without any of its words, and without long thought."""
    found = stack({"docker-compose.yml": text})
    assert found.inside == ("docker-compose.yml",)
    assert said in " ".join(found.unread)
    assert "hunter2" not in repr(found)


def test_no_value_of_a_variable_is_told(stack):
    """Neither what a file of variables holds nor what `.env` does gets into a message."""
    found = stack(
        {
            ".env": "PASSWORD=hunter2\nPATHS=x",
            "docker-compose.yml": 'services: {one: {image: a, env_file: ["${LOST}/a", "${PATHS}"]}}',
            "x": "PASSWORD=hunter2",
        }
    )
    assert "hunter2" not in repr(found)
    assert found.unread == (
        "docker-compose.yml uses the variable LOST in a path, but it has no value.",
    )
    assert found.missing == ("/a",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A/${A}", "1/1"),
        ("${B:-d}${E:-d}${E-d}${B-d}", "dd" + "d"),
        ("${A:+x}${B:+x}${E:+x}${E+x}", "xx"),
        ("$$A $${A} $ 1", "$A ${A} $ 1"),
        ("${B:-${C:-/x/${A}}}/y", "/x/1/y"),
        ("${B:?no}${A:?no}", "1"),
        ("${B}", ""),
        ("${A", "${A"),
    ],
)
def test_variables_are_replaced_as_compose_does(text, value):
    """Defaults, alternatives, errors, two dollars, one in the other; A is 1, E is empty."""
    assert filled(text, {"A": "1", "E": ""}) == value


def test_a_file_of_variables_is_read_as_compose_does():
    """Quotes, comments, `export`, Windows' ends of lines, variables of the file and of outside."""
    text = (
        "\ufeffA=1 # one\r\nexport B='$A #'\nC=\"x\\n$A\"\n# D=4\nE=\nF=${A}${OUT}\nG=a#b\n"
        'H = spaced \nI="two\nlines"\nJ'
    )
    assert variables(text, {"OUT": "o"}) == {
        "A": "1",
        "B": "$A #",
        "C": "x\n1",
        "E": "",
        "F": "1o",
        "G": "a#b",
        "H": "spaced",
        "I": "two\nlines",
    }


def test_a_text_that_nests_too_deep_is_refused():
    """The parser itself is never driven into a depth that it does not come out of."""
    with pytest.raises(NotRead, match="nest"):
        documents("{a: " * 100_000)


def test_many_files_take_few_commands(stack, tmp_path):
    """On a far machine each command is a journey: as many as files name files, and a few."""
    names = [f"e{n}.vars" for n in range(450)]
    stack(dict.fromkeys(names, ""))
    text = f"include: [a/b.yaml]\nservices: {{one: {{image: a, env_file: {json.dumps(names)}}}}}"
    stack({"docker-compose.yml": text, "a/b.yaml": "services: {two: {image: b}}"})
    host = Counting(str(stack.folder))
    found = compose_reads(host, str(stack.folder), ())
    assert len(found.inside) == 452
    assert host.asked <= 6


def test_a_python_without_the_c_part_reads_the_same(stack, monkeypatch):
    """A machine for which PyYAML has no wheel reads as well, and comes out of any depth."""
    files = {"docker-compose.yml": "services: {one: &a {image: x, <<: {env_file: e}}}", "e": ""}
    found = stack(files)
    assert found.inside == ("docker-compose.yml", "e")
    monkeypatch.delattr("yaml.CBaseLoader", raising=False)
    assert stack(files) == found
    for text in ("[" * 5000, "- " * 5000 + "x", '"\\UFFFFFFFF"'):
        with pytest.raises(NotRead):
            documents(text)


def test_a_folder_that_is_a_link_is_the_stack_too(stack, tmp_path):
    """Absolute paths count as the stack's, by the name of the link and by the real one."""
    link = tmp_path / "link"
    link.symlink_to(stack.folder)
    text = f"services: {{one: {{image: a, env_file: [{stack.folder}/a, {link}/b, ./c]}}}}"
    stack({"docker-compose.yml": text, "a": "", "b": "", "c": ""})
    found = compose_reads(LocalHost(str(link)), str(link), ())
    assert found.inside == ("a", "b", "c", "docker-compose.yml")
    assert (found.outside, found.missing) == ((), ())


def test_odd_names_are_found(stack):
    """Blanks, quotes, line ends, leading dashes: a name is a name."""
    names = ["a b", "it's", 'say "x"', "two\nlines", "-n", "ü", "$(x)", "d:e"]
    listed = json.dumps(["./" + name.replace("$", "$$") for name in names])
    text = f"services: {{one: {{image: a, env_file: {listed}}}}}".replace("\\\\n", "\\n")
    found = stack({"docker-compose.yml": text, **dict.fromkeys(names, "")})
    assert set(found.inside) == {*names, "docker-compose.yml"}
    assert found.missing == ()


def test_a_stack_on_another_machine_is_read_there(stack, sshd):
    """The same is found over SSH."""
    text = "include: [a/b.yaml]\nservices: {one: {image: a, env_file: [x y, gone], build: ctx}}"
    here = stack(
        {"docker-compose.yml": text, "x y": "", "a/b.yaml": "services: {two: {image: b}}"}
    )
    login = Login(sshd.login(), "test-pi")
    host = SshHost(login, str(stack.folder))
    found = compose_reads(host, str(stack.folder), ())
    login.close()
    assert found == here
    assert found.inside == ("a/b.yaml", "docker-compose.yml", "x y")
    assert found.missing == ("ctx", "gone")


def test_what_this_user_may_not_read_is_told_not_missing():
    """A file of somebody else's, one in a folder that is closed, and one that is a link there."""
    text = """
include: [theirs.yaml]
services: {one: {image: a, env_file: [closed/a, link, gone, nowhere/b]}}
"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - another user looks into it
        os.mkdir(f"{folder}/closed", 0o000)
        os.symlink("closed/a", f"{folder}/link")
        for name, mode in (("docker-compose.yml", 0o644), ("theirs.yaml", 0o000)):
            descriptor = os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, mode)
            os.write(descriptor, text.encode())
            os.close(descriptor)
        other = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        found = compose_reads(LocalHost(folder), folder, other if os.geteuid() == 0 else ())
        os.chmod(f"{folder}/closed", 0o700)
    assert found.inside == ("docker-compose.yml",)
    assert found.missing == ("gone", "nowhere/b")
    told = " ".join(found.unread)
    assert "theirs.yaml " in told
    for name in ("closed/a", "link"):
        assert f"Cannot check {name}: permission denied." in told


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose")
def test_compose_itself_reads_the_same(stack):
    """docker-compose 1 gives services the mounts that we find in the same files."""
    found = stack(
        {
            "docker-compose.yml": """
version: "3.6"
x-base: &base {image: a, restart: always}
services:
  one:
    <<: *base
    env_file: [e/a.vars]
    build: {context: ctx, dockerfile: D}
    volumes: ["./a:/a", "~/b:/b:ro", "${WHERE:-/srv}/c:/c", "data:/data", "../up:/up"]
  two: {image: "b:$$x", volumes: ["${WHERE2}/q:/q"]}
volumes: {data: {name: "x-${WHO}"}}
""",
            ".env": "WHO='me' \nWHERE2=\"/opt/me\"\n",
            "e/a.vars": "",
            "ctx/D": "",
        }
    )
    told = subprocess.run(
        ["docker-compose", "-f", f"{stack.folder}/docker-compose.yml", "config"],
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    import yaml

    theirs = yaml.safe_load(told.stdout)
    for service in found.services:
        listed = [
            f"{m.source or 'data'}:{m.target}:{'rw' if m.writable else 'ro'}"
            for m in service.mounts
        ]
        assert theirs["services"][service.name]["volumes"] == listed
    assert theirs["volumes"]["data"]["name"] == "x-me"
    assert mounts(found)[3] == ("", "/data", True, "x-me")
    assert mounts(found, "two") == [("/opt/me/q", "/q", True, "")]
    assert found.inside == (".env", "ctx", "docker-compose.yml", "e/a.vars")


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose")
def test_compose_itself_extends_and_overrides_the_same(stack):
    """Files that COMPOSE_FILE names, one in another folder; an extended service of a third."""
    found = stack(
        {
            ".env": "COMPOSE_FILE=sub/main.yml:over/over.yml\n",
            "sub/main.yml": """
services:
  one: {extends: {file: common/base.yml, service: base}, volumes: ["./mine:/data"]}
""",
            "sub/common/base.yml": """
services:
  base: {image: a, env_file: base.env, build: {context: ctx}, volumes: ["./a:/data", "./b:/b:ro"]}
""",
            "sub/common/base.env": "",
            "sub/common/ctx/Dockerfile": "",
            "over/over.yml": "services: {one: {image: b, volumes: ['./o:/o']}}",
        }
    )
    told = subprocess.run(
        ["docker-compose", "config"], cwd=stack.folder, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    import yaml

    theirs = yaml.safe_load(told.stdout)["services"]["one"]
    ours = {f"{source}:{target}:{'rw' if w else 'ro'}" for source, target, w, _ in mounts(found)}
    assert {f"{v}:rw" if v.count(":") == 1 else v for v in theirs["volumes"]} == ours
    assert theirs["image"] == found.services[0].image == "b"
    assert theirs["build"]["context"] == f"{stack.folder}/sub/common/ctx"
    assert "sub/common/ctx" in found.inside
    assert found.missing == ()


def test_a_yaml_library_that_was_not_installed_yet_is_named(monkeypatch):
    """A checkout that is newer than what was installed for it makes no traceback of a backup."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(NotRead, match=r"PyYAML is not installed.*sh setup"):
        documents("services: {}")


def test_files_that_were_given_to_compose_count(stack):
    """By -f and --env-file, with what they name; of those that are gone nothing is missed."""
    files = {
        "docker-compose.yml": "services: {one: {image: x}}",
        "more/extra.yml": 'services: {two: {image: "${IMAGE}", env_file: secrets/two.env}}',
        "my.env": "IMAGE=other",
        "secrets/two.env": "A=1",
    }
    assert stack(files).inside == ("docker-compose.yml",)
    top = stack.folder
    names = [f"{top}/{each}" for each in ("docker-compose.yml", "more/extra.yml", "gone.yml")]
    given = [Given(str(top), tuple(names), (f"{top}/my.env", f"{top}/gone.env"))]
    found = compose_reads(LocalHost(str(top)), str(top), (), given)
    assert found.inside == ("docker-compose.yml", "more/extra.yml", "my.env", "secrets/two.env")
    assert (found.missing, found.unread) == ((), ())
    assert [(each.name, each.image) for each in found.services] == [("one", "x"), ("two", "other")]


def test_a_stack_has_the_name_that_compose_gives_it(stack):
    """By its files, or by its folder."""
    assert stack({"docker-compose.yml": "services: {}"}).project == "iotstack"
    assert stack({"docker-compose.yml": "name: home\nservices: {}"}).project == "home"
    assert stack({".env": "COMPOSE_PROJECT_NAME=pi"}).project == "pi"
