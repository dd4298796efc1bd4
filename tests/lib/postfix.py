# ISC licence: see COPYING.
"""Postfix: a server for the examples that send mail, a client for one that takes it."""

import os
import pwd
import shutil

from chain import need
from examples import Daemon, free_port
from pki import pki
from scratch import temp_dir
from tap import wait_for

MAIN_CF = '''
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file_prefixes = {dir}
maillog_file = {dir}/log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
mynetworks = 127.0.0.0/8
myhostname = example.org
mydestination =
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = example.net
virtual_mailbox_maps = inline:{{ bob@example.net=bob/ }}
virtual_mailbox_base = {dir}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
virtual_mailbox_limit = 0
message_size_limit = 0
smtpd_tls_security_level = {level}
smtpd_tls_chain_files = {pki}/server.key, {pki}/server.pem
smtpd_tls_session_cache_database =
'''

MASTER_CF = '''
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
'''


class Postfix:
    """Postfix, all of it in a temporary directory, with STARTTLS at that level; more settings."""

    def __init__(self, level='may', **more):
        need('postfix')
        self.dir = temp_dir()
        self.port = free_port()
        config = self.dir + '/etc'
        nobody = pwd.getpwnam('nobody').pw_uid
        for name in 'etc', 'data', 'bob':
            os.mkdir('%s/%s' % (self.dir, name))
        shutil.chown(self.dir + '/data', 'postfix')
        shutil.chown(self.dir + '/bob', nobody, nobody)
        queue = self.dir + '/queue'
        os.mkdir(queue)
        for name in ('active bounce corrupt defer deferred flush hold incoming private saved trace '
                     'pid maildrop public').split():
            os.mkdir(queue + '/' + name)
            if name != 'pid':
                shutil.chown(queue + '/' + name, 'postfix', name in ('maildrop', 'public') and
                             'postdrop' or None)
        settings = {'dir': self.dir, 'uid': nobody, 'level': level, 'pki': pki(),
                    'port': self.port}
        for name, text in ('main.cf', MAIN_CF), ('master.cf', MASTER_CF):
            with open('%s/%s' % (config, name), 'w') as f:
                f.write(text.format(**settings))
                if name == 'main.cf':
                    f.writelines('%s = %s\n' % setting for setting in more.items())
        master = Daemon(['master', '-c', config, '-d', '-s'], env={'MAIL_CONFIG': config})
        master.wait_port(self.port)

    def log(self):
        path = self.dir + '/log'
        if not os.path.exists(path):  # as long as there is nothing to log
            return ''
        with open(path) as f:
            return f.read()

    def delivered(self, n=1):
        """The mails in bob's mailbox, when there are n: the head and the body of each."""
        new = self.dir + '/bob/new'
        wait_for(lambda: os.path.isdir(new) and len(os.listdir(new)) >= n, '%d mails' % n)
        mails = []
        for name in os.listdir(new):
            with open('%s/%s' % (new, name), 'rb') as f:
                mails.append(tuple(f.read().split(b'\n\n', 1)))
        return mails

    def wait_log(self, text):
        wait_for(lambda: text in self.log(), 'the line %r in Postfix\'s log' % text)
