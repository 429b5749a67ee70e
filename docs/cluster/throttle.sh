#!/bin/sh
# Give a real host's interface less bandwidth, both ways, and give it back:
#   throttle.sh eth0 1gbit        what leaves and what arrives, 1 Gbit/s each
#   throttle.sh eth0 off          as it was
# Run it as root on every host, and from a console that does not go over that interface. It makes one qdisc on the
# interface, an ingress qdisc, and an ifb device; "off" removes these and nothing else.
set -eu
interface=$1 rate=$2
mirror=$(printf 'ns-%s' "$interface" | cut -c 1-15)

if [ "$rate" = off ]; then
  tc qdisc del dev "$interface" root
  tc qdisc del dev "$interface" ingress
  ip link del "$mirror"
  exit
fi
if tc qdisc show dev "$interface" ingress | grep -q ingress || ip link show "$mirror" > /dev/null 2>&1; then
  echo "throttle.sh: $interface is throttled already; say: throttle.sh $interface off" >&2
  exit 1
fi
shape() { tc qdisc replace dev "$1" root tbf rate "$rate" burst 64kb latency 200ms; }
shape "$interface"
# What arrives can only be shaped where it leaves again: on a device that it is passed through.
ip link add "$mirror" type ifb
ip link set "$mirror" up
tc qdisc add dev "$interface" ingress
tc filter add dev "$interface" ingress protocol all u32 match u32 0 0 action mirred egress redirect dev "$mirror"
shape "$mirror"
