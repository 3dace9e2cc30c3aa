"""`python -m identity_graphql`."""

from identity_graphql.cli import app

if __name__ == "__main__":
    app(prog_name="identity-graphql")
