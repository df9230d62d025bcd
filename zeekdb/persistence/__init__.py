"""Values as bytes that outlive the process, in Redis's formats."""
