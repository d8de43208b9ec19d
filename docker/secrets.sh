#!/bin/sh
# Writes the secrets of docker-compose.yml, each into the volume of the service that reads it. What is there stays.
set -eu
umask 077
run=/run/stowage

random() {
    head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'
}

# keep FILE VALUE: write a file that is not there, whole or not at all.
keep() {
    [ -s "$1" ] || put "$1" "$2"
}

put() {
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}

keep "$run/postgres/password" "$(random)"
# PostgreSQL's user has another number; nobody but that service mounts this directory.
chmod 0444 "$run/postgres/password"
url="postgresql://stowage:$(cat "$run/postgres/password")@postgres:5432/stowage"
put "$run/manager/database-url" "$url"
put "$run/proxy/database-url" "$url"
keep "$run/manager/proxy-secret" "$(random)"
put "$run/proxy/proxy-secret" "$(cat "$run/manager/proxy-secret")"
keep "$run/manager/key" "$(random)"
keep "$run/manager/admin-token" "stw_$(random)"
# Keys of an object storage that is there, else those of the profile s3, whose server makes its user by them.
keep "$run/s3/access-key" "stowage:proxy"
keep "$run/s3/secret-key" "$(random)"
put "$run/proxy/s3-access-key" "${STOWAGE_S3_KEY:-$(cat "$run/s3/access-key")}"
put "$run/proxy/s3-secret-key" "${STOWAGE_S3_SECRET:-$(cat "$run/s3/secret-key")}"
if [ -n "${HF_TOKEN:-}" ]; then
    put "$run/proxy/registry-token" "$HF_TOKEN"
else
    rm -f "$run/proxy/registry-token"
fi
