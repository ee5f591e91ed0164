#!/usr/bin/env bash
# Takes a node of docker-compose.3x3.yml off the networks that join it to the other nodes of its region and to the other regions, and puts it
# back. Clients and MinIO still reach it. (To kill or pause one: docker kill, docker pause.)
#
#   node.sh cut NODE    node.sh heal NODE
set -euo pipefail

usage() {
	sed -n '5s/^# *//p' "$0" >&2
	exit 2
}

[ $# = 2 ] || usage
node=$2 container=commutator-$2
region=${node%-*}

# address: its fixed address on wan, as in docker-compose.3x3.yml.
address() {
	local r n
	case $region in us-east-1) r=1 ;; eu-west-1) r=2 ;; ap-northeast-1) r=3 ;; *) echo "node.sh: no region $region" >&2; return 2 ;; esac
	case ${node##*-} in a) n=1 ;; b) n=2 ;; c) n=3 ;; d) n=4 ;; *) echo "node.sh: no node $node" >&2; return 2 ;; esac
	echo "10.250.78.$r$n"
}

# attached NETWORK: the node is on it now.
attached() {
	[ -n "$(docker inspect --format "{{with index .NetworkSettings.Networks \"$1\"}}{{.NetworkID}}{{end}}" "$container")" ]
}

ip=$(address)
case $1 in
cut)
	for network in "commutator_${region}_nodes" commutator_wan; do
		if attached "$network"; then docker network disconnect "$network" "$container"; fi
	done
	;;
heal)
	# The aliases are those that compose gave it: without them its names would be gone.
	if ! attached "commutator_${region}_nodes"; then
		docker network connect --alias "$node.nodes" "commutator_${region}_nodes" "$container"
	fi
	if ! attached commutator_wan; then docker network connect --ip "$ip" --alias "$node.wan" commutator_wan "$container"; fi
	;;
*) usage ;;
esac
