"""Graphs: methods for sets of graphs, and for the nodes of one."""
