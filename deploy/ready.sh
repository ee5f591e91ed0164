#!/usr/bin/env bash
# Waits until every container of the deployment is healthy, 90 seconds at most, and says where the nodes answer. A container that does not get
# there has its last lines shown, and the exit code is 1. With names of nodes, as us-east-1-a, it waits for those alone.
set -euo pipefail

deadline=$((SECONDS + 90))
if [ $# -gt 0 ]; then
	containers=("${@/#/commutator-}")
else
	mapfile -t containers < <(docker ps -a --filter label=com.docker.compose.project=commutator --format '{{.Names}}' | sort)
fi
for container in "${containers[@]}"; do
	while :; do
		state=$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$container")
		[ "$state" = "running healthy" ] && break
		if [ "${state%% *}" = exited ] || [ "${state%% *}" = dead ] || [ $SECONDS -ge $deadline ]; then
			echo "ready: $container is $state; its last lines:" >&2
			docker logs --tail 40 "$container" >&2
			exit 1
		fi
		sleep 0.25
	done
done
for container in "${containers[@]}"; do
	[ "$container" = commutator-minio ] && continue
	printf '%-18s http://%s   operators http://%s\n' "${container#commutator-}" "$(docker port "$container" 8000)" "$(docker port "$container" 9000)"
done
