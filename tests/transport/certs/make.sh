#!/bin/sh
# Makes the certificates of the mutual TLS tests: a CA, and a server and a client that it vouches for.
# They guard nothing. Valid for a hundred years; run this again, with openssl, only to change them.
set -eu
cd "$(dirname "$0")"
openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj "/CN=Penstock test CA" \
    -keyout ca.key -out ca.pem
for who in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=penstock-test-$who" -keyout $who.key -out $who.csr
    printf 'subjectAltName=DNS:penstock-test-%s,DNS:localhost\n' $who > $who.ext
    openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -set_serial $(od -An -N4 -tu4 /dev/urandom) \
        -days 36500 -extfile $who.ext -out $who.pem
    rm $who.csr $who.ext
done
rm ca.key  # it is not needed for further signatures
