#!/bin/sh
# Makes the stubs and the program, both in target/, and notes what it runs with in target/classpath.
set -eu
cd "$(dirname "$0")"

mvn --quiet --batch-mode compile
mvn --quiet --batch-mode dependency:build-classpath -Dmdep.outputFile=target/classpath
