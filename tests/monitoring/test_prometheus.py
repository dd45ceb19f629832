"""The real Prometheus and node_exporter read the textfile, and the dashboard's queries work."""

import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from contexts import until
from ports import free_port
from sample_facts import BARE, FACTS, made

from iotstack_invoke.monitoring.dashboards import dashboard
from iotstack_invoke.monitoring.metrics import metrics_of, prometheus_text
from iotstack_invoke.monitoring.textfile import write_textfile

SETTINGS = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture(autouse=True)
def programs():
    """Skip where they are not installed; where CI promised them, fail."""
    missing = [
        name
        for name in ("prometheus", "promtool", "prometheus-node-exporter")
        if not shutil.which(name)
    ]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.mark.parametrize("facts", [FACTS, BARE], ids=["all", "bare"])
def test_promtool_has_no_complaint(facts):
    """Neither about the format nor about a name."""
    words = ["promtool", "check", "metrics"]
    done = subprocess.run(
        words, input=prometheus_text(facts), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_alerts_of_the_page_are_right(tmp_path):
    """Prometheus takes the rules of docs/how-to/metrics.md, and they ask for what exists."""
    page = Path(__file__).parents[2] / "docs/how-to/metrics.md"
    (rules,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "rules.yml").write_text(rules)
    words = ["promtool", "check", "rules", tmp_path / "rules.yml"]
    done = subprocess.run(words, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    known = {f"iotstack_backup_{each.name}" for each in metrics_of(FACTS)}
    assert set(re.findall(r"iotstack_backup_\w+", rules)) <= known


@pytest.fixture
def prometheus(tmp_path):
    """A Prometheus that reads what an exporter finds in a folder; yields its address."""
    exporter, server = free_port(), free_port()
    (tmp_path / "textfile").mkdir()
    settings = tmp_path / "prometheus.yml"
    settings.write_text(SETTINGS.format(port=exporter))
    commands = (
        [
            "prometheus-node-exporter",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={tmp_path}/textfile",
            f"--web.listen-address=127.0.0.1:{exporter}",
        ],
        [
            "prometheus",
            f"--config.file={settings}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{server}",
        ],
    )
    running = []
    for each in commands:
        with (tmp_path / f"{each[0]}.log").open("wb") as log:
            running.append(subprocess.Popen(each, stdout=log, stderr=log))
    yield f"http://127.0.0.1:{server}"
    for each in running:
        each.terminate()
    for each in running:
        each.wait(30)


def asked(address, query):
    """The result of a query, now."""
    words = urllib.parse.urlencode({"query": query})
    url = f"{address}/api/v1/query?{words}"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - on the loopback
        return json.load(answer)["data"]["result"]


def test_all_is_scraped_and_each_query_of_the_dashboard_returns_data(prometheus, tmp_path):
    """The exporter reports no error in the file, and its machine is a label of each metric."""
    facts = made(datetime.now(UTC))
    write_textfile(f"{tmp_path}/textfile/iotstack.prom", prometheus_text(facts))
    until(lambda: asked(prometheus, "iotstack_backup_observed_timestamp_seconds"))
    assert [each["value"][1] for each in asked(prometheus, "node_textfile_scrape_error")] == ["0"]
    for each in metrics_of(facts):
        assert len(asked(prometheus, f"iotstack_backup_{each.name}")) == len(each.samples)
    model = json.loads(dashboard("prometheus"))
    for panel in model["panels"]:
        target = panel["targets"][0]
        found = asked(prometheus, target["expr"].replace("$instance", ".*"))
        assert found, target["expr"]
        label = re.fullmatch(r"\{\{(\w+)\}\}", target["legendFormat"])
        assert not label or label[1] in found[0]["metric"]
    name = re.search(r"label_values\((\w+), (\w+)\)", model["templating"]["list"][1]["query"])
    assert name[2] in asked(prometheus, name[1])[0]["metric"]
    age = asked(prometheus, 'time() - iotstack_backup_newest_timestamp_seconds{vault="here"}')
    assert 7190 < float(age[0]["value"][1]) < 7400
