"""Real servers for tests to talk to, and the network between them that fails on request.

Each server is a process on a free port or a Unix socket of its own, its files in a folder of its own under the
system's temporary folder; it is ready when it answers, and ends with its children when the test (or the tests' whole
run) ends, also when that run is killed. A program that this machine lacks skips the test and names the package.

    redis.py      redis-server alone, behind Sentinel, and as a cluster of three
    postgres.py   Debian's PostgreSQL: trust on a Unix socket, scram-sha-256 over TCP, TLS on request
    s3.py         moto's S3 server
    proxy.py      what stands between a client and a server: pass, dead, hang, slow, cut, or a reply of the test's own
    tls.py        a certificate authority and a certificate for this machine
    shared.py     `Rigs`: the servers that the tests of one run share, clean for each test; the fixture `rigs`
"""
