"""Web pages: server-rendered, readable without a script, live with one.

Pages ask the kernel as whoever holds the session; they know no rule of their own about who may
do what, and no other face of the product.
"""
