"""A Docker of a few lines, with volumes: for what a stack keeps outside of its folder."""

import json
import sys
from pathlib import Path

DOCKER = f"""
case " $* " in
*" --filter "* | *" --format "*) ;;
" ps --all "*) exec cat "$0.ids" ;;
" ps "*) exit ;;
" inspect --type container $(echo $(cat "$0.ids")) ") exec cat "$0.json" ;;
" image inspect "*) echo '[]'; exit ;;
" compose version "*) [ ! -e "$0.alone" ] && echo 'Docker Compose version v2.24.5'; exit ;;
esac
exec {sys.executable} -I -S "$0.py" "$@"
"""
"""What is asked in each run is answered without a start of Python, which takes ten times as long."""
PROGRAM = """
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
known = here / "docker.json"
root = here.parent / "docker"
words = sys.argv[1:]
containers = json.loads(known.read_text())
first = " ".join(words[:2])
if first == "inspect --type" and "--format" not in words:
    print(json.dumps([each for each in containers if each["Id"] in words]))
elif words[0] == "info":
    print(root)
elif words[0] == "version":
    print("28.2.2")
elif words[0] == "compose" and "up" in words:
    made = (here / "docker.made.json").read_text()
    known.write_text(made)
    (here / "docker.ids").write_text("".join(each["Id"] + "\\n" for each in json.loads(made)))
elif first == "volume create" and (root / "volumes" / words[-1] / "labels").exists():
    print(words[-1])
elif first == "volume create":
    (root / "volumes" / words[-1] / "_data").mkdir(parents=True)
    pairs = [*zip(words, words[1:])]
    labels = [each for word, each in pairs if word == "--label"]
    (root / "volumes" / words[-1] / "labels").write_text("\\n".join(labels))
    options = dict(each.split("=", 1) for word, each in pairs if word == "--opt")
    if options:
        (root / "volumes" / words[-1] / "options").write_text(json.dumps(options))
elif first == "volume rm":
    shutil.rmtree(root / "volumes" / words[-1])
elif first == "volume inspect":
    found = []
    for name in words[2:]:
        folder = root / "volumes" / name
        if folder.is_dir():
            told = (folder / "labels").read_text().split()
            labels = dict(each.split("=", 1) for each in told)
            options = folder / "options"
            more = {"Options": json.loads(options.read_text())} if options.exists() else {}
            place = str(folder / "_data")
            found.append({"Name": name, "Mountpoint": place, "Labels": labels, **more})
    print(json.dumps(found))
    sys.exit(len(found) < len(words[2:]))
"""


class LittleDocker:
    """The Docker of a little stack: containers that are stopped, and volumes with files."""

    def __init__(self, stack):
        self.stack = stack
        self.root = stack.tools.parent / "docker"
        stack.tool("docker", DOCKER)
        (stack.tools / "docker.py").write_text(PROGRAM)
        self.knows({})

    def knows(self, containers, *, later=None, **images):
        """Let it know containers, each with its mounts; after `compose up`, those of `later`.

        Those of `images` are of other ones than Node-RED's.

        A mount is a path of the machine or of the stack (./), or a volume's name; and its place.
        """
        for file, which in (("docker.json", containers), ("docker.made.json", later)):
            told = [
                self._told(name, mounts, images.get(name, "nodered/node-red"))
                for name, mounts in (containers if which is None else which).items()
            ]
            (self.stack.tools / file).write_text(json.dumps(told))
        (self.stack.tools / "docker.ids").write_text("".join(f"{each}\n" for each in containers))

    def _told(self, name, mounts, image):
        label = {"com.docker.compose.project.working_dir": str(self.stack.folder)}
        return {
            "Id": name,
            "Name": f"/{name}",
            "Image": "sha256:aaa",
            "State": {"Running": False, "Paused": False},
            "Config": {"Image": image, "Labels": label},
            "Mounts": [self._mount(*each) for each in mounts],
        }

    def _mount(self, source, inside):
        if source.startswith((".", "/")):
            return {"Source": str(self.stack.folder / source), "Destination": inside}
        files = str(self.files(source))
        return {"Type": "volume", "Name": source, "Source": files, "Destination": inside}

    def files(self, volume):
        """Return where the files of a volume lie."""
        return self.root / "volumes" / volume / "_data"

    def volume(self, name, text, *, key=""):
        """Make a volume with one file; compose made it if it has a key."""
        self.files(name).mkdir(parents=True)
        (self.files(name) / "file").write_text(text)
        label = f"com.docker.compose.volume={key}" if key else ""
        (self.root / "volumes" / name / "labels").write_text(label)

    def on_device(self, name, **options):
        """Let a volume be one of a device, which is not mounted now, or have other options."""
        options = options or {"type": "ext4", "device": "/dev/disk/by-label/none"}
        (self.root / "volumes" / name / "options").write_text(json.dumps(options))

    def without_compose_2(self):
        """Let it have no plugin for Compose."""
        (self.stack.tools / "docker.alone").touch()

    def options(self, name):
        """Return what the driver of a volume was told."""
        path = self.root / "volumes" / name / "options"
        return json.loads(path.read_text()) if path.exists() else {}

    def labels(self, volume):
        """Return what a volume bears."""
        return set((Path(self.root) / "volumes" / volume / "labels").read_text().split())
