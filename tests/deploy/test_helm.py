"""The Helm chart: linted and rendered by Helm's own engine, each object checked against Kubernetes' schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, HelmError, lint

from stream_learner import config as configs

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "stream-learner"
KUBERNETES = ("1.27", "1.34")
MAPPING = {"fields": {"user": "u", "item": "i", "time": "t", "type": "e"}}
SOURCE = {"kind": "kafka", "kafka": {"bootstrap_servers": "kafka:9092"}}
PLAIN: dict[str, Any] = {"config": {"name": "conversion", "source": SOURCE, "topics": {"events": MAPPING}}}
FULL: dict[str, Any] = {
    **PLAIN,
    "replicaCount": 2,
    "secretEnv": ["kafka-password"],
    "tlsSecret": "kafka-tls",
    "imagePullSecrets": [{"name": "registry"}],
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "networkPolicy": {"enabled": True, "egressPorts": [9092, 443]},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "learner", "operator": "Exists"}],
}
_CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # not of Kubernetes itself


def render(values: dict[str, Any]) -> dict[str, Any]:
    """The objects of a release by kind."""
    with Chart.load(CHART) as chart:
        texts = chart.render(values, name="shop", namespace="learners")
    documents = [yaml.safe_load(text) for name, text in texts.items() if name.endswith(".yaml")]
    return {document["kind"]: document for document in documents if document}


@pytest.mark.parametrize("values", [PLAIN, FULL], ids=["plain", "full"])
def test_the_chart_has_no_complaint(values):
    found = lint(CHART, values, strict=True)
    assert found["errors"] == []
    assert [m["error"] for m in found["messages"] if "icon" not in m["error"]] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [PLAIN, FULL], ids=["plain", "full"])
def test_each_object_is_one_that_kubernetes_takes(values, version):
    objects = render(values)
    assert {"StatefulSet", "ConfigMap", "Service", "ServiceAccount", "PersistentVolumeClaim"} <= set(objects)
    for kind, document in objects.items():
        if kind not in _CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("values", [PLAIN, FULL], ids=["plain", "full"])
def test_the_config_it_mounts_is_one_that_the_worker_takes(values, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(render(values)["ConfigMap"]["data"]["config.yaml"])
    config = configs.load(str(path))
    assert config.state == "/var/lib/stream-learner" and config.observing.host == "0.0.0.0"
    assert config.source.kafka.bootstrap_servers == "kafka:9092"


def test_a_pod_is_unprivileged_and_can_write_only_where_it_must():
    pod = render(FULL)["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/var/lib/stream-learner", "/tmp"]


def test_the_worker_has_time_to_write_its_snapshot():
    grace = render(PLAIN)["StatefulSet"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > configs.load(str(CHART.parents[2] / "configs" / "default.yaml")).shutdown.timeout.seconds


def test_a_standby_shares_the_state_and_may_be_disrupted_one_at_a_time():
    alone, paired = render(PLAIN), render(FULL)
    assert alone["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert paired["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "PodDisruptionBudget" not in alone
    assert paired["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_a_new_config_restarts_the_pods():
    def checksum(values: dict[str, Any]) -> str:
        template = render(values)["StatefulSet"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    other = {"config": {**PLAIN["config"], "seed": 1}}
    assert checksum(PLAIN) == checksum(PLAIN) != checksum(other)


def test_the_rules_are_those_of_the_file():
    rules = yaml.safe_load((CHART.parents[1] / "prometheus" / "rules.yaml").read_text())
    assert render(FULL)["PrometheusRule"]["spec"] == rules


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicaCount": "two"}, "replicaCount"),
        ({"config": {**PLAIN["config"], "state": "/elsewhere"}}, "config"),
        ({"persistence": {"size": "a lot"}}, "size"),
        ({"terminationGracePeriodSeconds": 5}, "terminationGracePeriodSeconds"),
        ({"replicas": 3}, "replicas"),
    ],
)
def test_wrong_values_are_refused_by_name(values, named):
    with Chart.load(CHART) as chart, pytest.raises(HelmError, match=named):
        chart.render({**PLAIN, **values}, name="shop")
