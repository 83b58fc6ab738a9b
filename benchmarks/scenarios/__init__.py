"""Congestion control on paths that never change: the whole stack, and models of TCP, in one simulated network.

``python -m benchmarks.scenarios`` runs them.  From the bottom up:

======================== ==========================================================================================
``queues.py``            what a link does with datagrams that wait or get lost
``tcp.py``               Reno and CUBIC
``libutp.py``            classic LEDBAT as libutp has it, which is what most published figures are about
``controllers.py``       the controllers that can be compared, by name
``definitions.py``       what a scenario says: a path, flows, and the spans of time to look at
``paths.py``             from a path to links
``flows.py``             from a flow to protocols on the simulated hosts
``measure.py``           numbers from deliveries and queues
``running.py``           one run: scenario, controller and seed in, numbers out
``jobs.py``              all runs that there are to do
``published.py``         what others measured
``catalogue.py``         the scenarios
``report.py, graphs.py`` tables and pictures
======================== ==========================================================================================

Everything happens in virtual time: the same scenario, controller and seed give the same numbers on any machine.
"""
