"""Every operator in a small graph: random atoms go, and the certificate has to hold."""
