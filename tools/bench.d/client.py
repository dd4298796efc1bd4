# ISC licence: see COPYING.
"""What it costs a client to trust the system's authorities."""

import os
import socket
import ssl
import statistics
import subprocess
import sys

import contenders
import processes


def sessions(o, dir, keys, path, trust):
    """CPU ms of our client's tree for a session with a local server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys + '/cert.pem', keys + '/key.pem')
    env = dict(trust, PATH=path + ':' + os.environ['PATH'])
    before = processes.cpu_of_dead()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        for _ in range(o.sessions):
            p = subprocess.Popen(['tcpclient', '-RHl0', '127.0.0.1', str(listener.getsockname()[1]),
                                  'tls-handshake', '-c', '-k', 'localhost', 'tls-io', '-w', 'true'],
                                 env=env)
            s, _ = listener.accept()
            with context.wrap_socket(s, server_side=True) as t:
                t.recv(1)
                t.unwrap().close()
            if p.wait():
                sys.exit('a client failed')
    processes.until(lambda: not processes.reap(), 'processes do not end')
    return (processes.cpu_of_dead() - before) * 1000 / o.sessions


def table(o, dir, keys):
    """The server's own certificate is added to the system's authorities, both ways."""
    path = contenders.labelled(o.bindirs)[0][1]
    hashed = dir + '/hashed'
    os.mkdir(hashed)
    with open('/etc/ssl/certs/ca-certificates.crt') as f:
        all = f.read()
    with open(keys + '/cert.pem') as f:
        all += f.read()
    with open(dir + '/all.pem', 'w') as f:
        f.write(all)
    mark = '-----END CERTIFICATE-----\n'
    for i, pem in enumerate(all.split(mark)[:-1]):
        with open('%s/%d.pem' % (hashed, i), 'w') as f:
            f.write(pem + mark)
    subprocess.run(['openssl', 'rehash', hashed], check=True, stderr=subprocess.DEVNULL)
    kinds = {'CAFILE': {'CAFILE': dir + '/all.pem'}, 'CADIR': {'CADIR': hashed},
             'CAFILE, one only': {'CAFILE': keys + '/cert.pem'}}
    figures = {k: [] for k in kinds}
    for _ in range(o.rounds):
        for k in kinds:
            figures[k].append(sessions(o, dir, keys, path, kinds[k]))
    print('%d authorities' % all.count(mark))
    for k, values in figures.items():
        print('%-18s%8.2f ms a session, of %.2f to %.2f'
              % (k, statistics.median(values), min(values), max(values)))
