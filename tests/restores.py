"""A little stack that was restored, or whose restore died."""

KILLING_MV = """/bin/mv "$@"; code=$?
case "$2" in MOVED) rm "$0"; until [ -s FILE ]; do sleep 0.05; done
kill -9 "$(cat FILE)" "$PPID" ;; esac
exit $code"""


def flows(stack):
    return (stack.folder / "volumes/nodered/flows.json").read_text()


def restored_once(stack, change=lambda: None):
    """Restore t1 well, so that [1] is live in place of [2]; `change` comes before."""
    (stack.folder / "volumes/nodered/flows.json").write_text("[1]\n")
    assert stack.run("backup --runtag t1").returncode == 0
    (stack.folder / "volumes/nodered/flows.json").write_text("[2]\n")
    change()
    told = stack.run("restore --runtag t1 --from here --yes")
    assert told.returncode == 0, told.stderr


def killed_amid_the_swap(
    stack,
    line="restore --runtag t1 --from here --yes",
    moved="*volumes/nodered",
    script=KILLING_MV,
):
    """Let a restore of t1 die when the live folder is moved away; return its log, if it has one."""
    pid = stack.tools / "pid"
    stack.tool("mv", script.replace("FILE", str(pid)).replace("MOVED", moved))
    process = stack.start(line)
    pid.write_text(str(process.pid))
    process.communicate(timeout=60)
    assert process.returncode == -9
    return next((stack.folder / "backups").glob("t1.restore-*.log.partial"), None)
