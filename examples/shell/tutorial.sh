#!/bin/sh
# Walks the tutorial with the command line: a role, a key, a renewal, the revocation, an error.
# It needs LESSOR_ADDR and LESSOR_TOKEN.
set -eu

policy='{
  "Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": "ec2:DescribeRegions", "Resource": "*"}]
}'

# Prints one value of a table: its first word names the field.
field() {
  sed -n "s/^$1  *//p"
}

version=$(lessor info | field version)
echo "version $version"

lessor role put reader --type iam_user --policy-document "$policy" > /dev/null
echo "role reader"

# With a request id the command retries, and never issues twice.
issued=$(lessor creds reader --ttl 15m --reason 'the shell example' \
  --request-id auto --format env 2> /dev/null)
lease=$(echo "$issued" | sed -n 's/^# lease //p')

# Whatever happens, the key is revoked.
trap 'lessor lease revoke "$lease" > /dev/null' EXIT

# In a subshell, so that the key is in no other command's environment.
(
  eval "$issued"
  echo "issued $AWS_ACCESS_KEY_ID"
  # aws ec2 describe-regions
)

lessor lease renew "$lease" --increment 1h > /dev/null
echo "renewed for 3600 s"

outcome=$(lessor lease revoke "$lease" --sync | field outcome)
trap - EXIT
echo "revoked $outcome"

# The exit code 5 means that something does not exist.
code=0
lessor creds nobody > /dev/null 2>&1 || code=$?
if [ "$code" -eq 5 ]; then
  echo "refused NOT_FOUND"
fi
