"""Which of Twisted's tests do not run over uTP, and why: the one table of exceptions."""

from __future__ import annotations

DESCRIPTOR = "asks the reactor for the file descriptor of one connection; promises.py asks for data"
EXHAUSTION = "runs out of file descriptors while accepting; accepting uTP takes none"
UNAWAITED = "ends without waiting for its connections, which the kernel would close behind it"
HANDLE = "writes to the socket of one connection with getHandle(); many share a UDP socket"

# What is skipped over uTP. Nothing else may be: tests/project/test_conformance.py looks at the reasons.
SKIPPED = {
    "ConnectionTests.test_resumeProducing": DESCRIPTOR,
    "ConnectionTests.test_resumeProducingWhileDisconnected": DESCRIPTOR,
    "ConnectionTests.test_resumeProducingWhileDisconnecting": DESCRIPTOR,
    "FetchSearchStoreTests.test_invalidTerm": UNAWAITED,
    "PauseProducingTests.test_pauseProducingInConnectionMade": DESCRIPTOR,
    "PortTests.test_closePeerOnEMFILE": EXHAUSTION,
    "ProperlyCloseFilesTests.test_properlyCloseFiles": HANDLE,
    "StolenTCPTests.test_properlyCloseFiles": HANDLE,
    "TLSPortTests.test_closePeerOnEMFILE": EXHAUSTION,
}

CHILDREN = "waits for the end of a child process, of which Twisted does not hear on uvloop (with TCP neither)"
TIMER_FIRST = (
    "aborts after 10 ms; uvloop rings that timer before the server can read the packet that makes its protocol"
)

# The same on asyncio on uvloop, besides.
SKIPPED_ON_UVLOOP = {
    "AbortTests.test_fullWriteBuffer": TIMER_FIRST,
    "TLSAbortTests.test_fullWriteBuffer": TIMER_FIRST,
    **{
        f"CmdLineClientTests.{name}": CHILDREN
        for name in (
            "test_connectToInvalidHost",
            "test_exec",
            "test_localToRemoteForwarding",
            "test_remoteToLocalForwarding",
            "test_runWithCompressionSpecified",
            "test_runWithLogFile",
            "test_runWithNoHostAlgorithmsSpecified",
            "test_testFailure",
        )
    },
}

ADOPTION = "takes over a connected or listening socket of the kernel; a uTP connection has none"
INSIDES = "looks at the insides of twisted.internet.tcp, with fake sockets or none"
SOCKET_OPTIONS = "reads SO_REUSEADDR and SO_REUSEPORT of the socket behind a transport"
TOOLS = "tests the tools of the tests"
TLS_INSIDES = "looks at OpenSSL contexts; no transport takes part"

# The classes of the four modules of transport tests that are not bound at all; suite.py checks
# that every other test is.
NOT_BOUND = {
    "AdoptStreamConnectionTestsBuilder": ADOPTION,
    "AssertPeerClosedOnEMFILETests": TOOLS,
    "BuffersLogsTests": INSIDES,
    "ClientContextFactoryTests": TLS_INSIDES,
    "DefaultOpenSSLContextFactoryTests": TLS_INSIDES,
    "DeprecationTests": TLS_INSIDES,
    "ExhaustsFileDescriptorsTests": TOOLS,
    "FileDescriptorReservationTests": INSIDES,
    "NullFileDescriptorReservationTests": INSIDES,
    "SimpleUtilityTests": INSIDES,
    "TCPConnectionTests": INSIDES,
    "TCPFDPortTestsBuilder": ADOPTION,
    "TCPPortTests": INSIDES,
    "TCPServerTests": INSIDES,
    "TestBindAddressBuilder": SOCKET_OPTIONS,
}

BOTH_NUMBERS = "listens for DNS on TCP and UDP with one number; uTP is on the UDP port of that number itself"
IN_MEMORY = "calls the other side within its own calls, as only its relay in memory does"
KERNEL_CLIENT = "its clients are ssh and sftp, programs that speak TCP of the kernel"
OTHER_PROCESS = "starts cftp for each of its commands; that conch, its like, runs over uTP, CmdLineClientTests shows"

# The same for the suites of mail and SSH: what has something to do with connections and is not bound.
APPLICATIONS_NOT_BOUND = {
    "conch.test.test_cftp.OurServerBatchFileTests": OTHER_PROCESS,
    "conch.test.test_cftp.OurServerCmdLineClientTests": OTHER_PROCESS,
    "conch.test.test_cftp.OurServerSftpClientTests": KERNEL_CLIENT,
    "conch.test.test_conch.OpenSSHClientForwardingTests": KERNEL_CLIENT,
    "conch.test.test_conch.OpenSSHClientRekeyTests": KERNEL_CLIENT,
    "conch.test.test_conch.OpenSSHKeyExchangeTests": KERNEL_CLIENT,
    "conch.test.test_filetransfer.OurServerOurClientTests": IN_MEMORY,
    "conch.test.test_ssh.SSHProtocolTests": IN_MEMORY,
    "conch.test.test_userauth.LoopbackTests": IN_MEMORY,
    "mail.test.test_imap.DefaultSearchTests": UNAWAITED,
    "mail.test.test_imap.HandCraftedTests": IN_MEMORY,
    "mail.test.test_imap.IMAP4ServerSearchTests": IN_MEMORY,
    "mail.test.test_imap.TimeoutTests": IN_MEMORY,
    "mail.test.test_imap.UnsolicitedResponseTests": IN_MEMORY,
    "mail.test.test_mail.LiveFireExerciseTests": BOTH_NUMBERS,
    "mail.test.test_mail.MXTests": BOTH_NUMBERS,
    "mail.test.test_pop3.AnotherPOP3Tests": IN_MEMORY,
}

# How the reasons begin that the host is to blame for.
ABOUT_THE_HOST = (
    "Does not work on systems without IPv6",
    "IPv6 not available",
    "Link local IPv6 address unavailable",
    "The es_AR.UTF8 locale is not installed",
)

# The other way round: what promises.py asks of uTP and TCP cannot do.
ADDRESSES_OF_TCP = "asks its socket for addresses, and has none after the end"
ITERABLES_OF_TCP = "walks through an iterable twice, and finds a generator empty"
SILENCE_OF_TCP = "always gets an answer on the loopback interface"
GAPS_OF_TCP = {ADDRESSES_OF_TCP, ITERABLES_OF_TCP, SILENCE_OF_TCP}
