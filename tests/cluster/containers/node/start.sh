#!/bin/bash
# Process 1 of a node: prepares it, starts its programs, starts those again that end, and reaps what is left of others.
# /cluster has the node's files (tests/cluster/components.py), /opt/cluster the programs and the first images.
# It runs at each start of the container, in a new network namespace and a new /run.
set -eu
trap 'exit 0' TERM INT
source /cluster/node
log=/var/log/cluster
export PATH=/opt/cluster/hyperkube:/opt/cluster/netpol:/opt/cluster/local-path-provisioner:$PATH

keep() { # NAME COMMAND...
  local name=$1
  shift
  (
    while :; do
      "$@" </dev/null >>"$log/$name.log" 2>&1 && code=0 || code=$?
      echo "exit code $code: $name starts again" >>"$log/$name.log"
      sleep 1
    done
  ) &
}

mkdir -p "$log" /etc/cni/net.d /etc/containerd /var/lib/kubelet
ln -sf /dev/null /dev/kmsg
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
cp /cluster/containerd.toml /etc/containerd/config.toml
cp /cluster/10-bridge.conflist /etc/cni/net.d/
# Pods run inside of the container's own control group: its limits hold for them, and they end with it.
own=$(awk -F: '$2 == "memory" { print $3 }' /proc/self/cgroup)
[ -n "$own" ] || { echo "no control group of version 1 for memory in /proc/self/cgroup" >&2; exit 1; }
sed "s#@OWN_CGROUP@#$own#" /cluster/kubelet.yaml >/run/kubelet.yaml

# Masqueraded on the way out of the pod network only: within it, policies see the pods' own addresses.
iptables -t nat -A POSTROUTING -s "$PODS" ! -d "$POD_RANGE" -j MASQUERADE
iptables -P FORWARD ACCEPT
sysctl -qw net.ipv4.ip_forward=1
while read -r route; do
  # shellcheck disable=SC2086  # words of a route
  ip route replace $route
done </cluster/routes
# netpol accepts packets before kube-proxy rejects those to a service without endpoints; they would leave the cluster.
ip rule add iif cni0 to "$SERVICE_RANGE" unreachable priority 100

runtime() {
  keep containerd containerd
  until ctr version >/dev/null 2>&1; do sleep 0.2; done
  ctr --namespace k8s.io images import /opt/cluster/images.tar >"$log/images.log" 2>&1
}

while read -r name command; do
  [ "$name" != kubelet ] || runtime
  keep "$name" bash -c "exec $command"
done </cluster/programs

sleep infinity &
wait $!
