#!/usr/bin/env bash
# Takes a region of docker-compose.yml off the network that joins the regions, and puts it back. Clients and MinIO still reach it.
#
#   wan.sh cut REGION    wan.sh heal REGION    wan.sh status
set -euo pipefail

regions=(us-east-1 eu-west-1 ap-northeast-1)

usage() {
	sed -n '4s/^# *//p' "$0" >&2
	exit 2
}

# attached CONTAINER: it is on wan now.
attached() {
	[ -n "$(docker inspect --format '{{with index .NetworkSettings.Networks "commutator_wan"}}{{.NetworkID}}{{end}}' "$1")" ]
}

# address REGION: its fixed address on wan, as in docker-compose.yml.
address() {
	case $1 in
	us-east-1) echo 10.250.77.11 ;;
	eu-west-1) echo 10.250.77.12 ;;
	ap-northeast-1) echo 10.250.77.13 ;;
	*) echo "wan.sh: no region $1 in docker-compose.yml" >&2; return 2 ;;
	esac
}

case ${1:-} in
cut)
	[ $# = 2 ] || usage
	address "$2" >/dev/null
	if attached "commutator-$2"; then docker network disconnect commutator_wan "commutator-$2"; fi
	;;
heal)
	[ $# = 2 ] || usage
	ip=$(address "$2")
	# The aliases are those that compose gave it: without them its name would be gone.
	if ! attached "commutator-$2"; then
		docker network connect --ip "$ip" --alias "$2.wan" --alias "$2" commutator_wan "commutator-$2"
	fi
	;;
status)
	[ $# = 1 ] || usage
	for r in "${regions[@]}"; do
		if attached "commutator-$r"; then echo "$r joined"; else echo "$r cut"; fi
	done
	;;
*) usage ;;
esac
