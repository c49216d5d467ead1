"""Make a shop as it was at a version of its legacy repository, with rows in it.

    python make_shop.py /path/to/shop.db 2

The interpreter needs sqlalchemy-migrate (refresh-agent's extra "migrate").
"""

import argparse
import os

from migrate.versioning import api
from sqlalchemy import create_engine, text

REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "legacy")

CUSTOMERS = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}, {"id": 3, "name": "Karen"}]
ORDERS = [
    {"id": 1, "customer_id": 1, "item": "engine", "price": 1815.12},
    {"id": 2, "customer_id": 1, "item": "punched cards", "price": 0.07},
    {"id": 3, "customer_id": 2, "item": "compiler", "price": 1952.0},
]


def make_shop(path: str, version: int) -> None:
    url = f"sqlite:///{os.path.abspath(path)}"
    api.version_control(url, REPOSITORY)
    api.upgrade(url, REPOSITORY, version)
    with create_engine(url).begin() as connection:
        connection.execute(text("INSERT INTO customers VALUES (:id, :name)"), CUSTOMERS)
        connection.execute(
            text(
                "INSERT INTO orders (id, customer_id, item, price) VALUES (:id, :customer_id, :item, :price)"
            ),
            ORDERS,
        )
    print(f"{path}: version {version}, {len(CUSTOMERS)} customers, {len(ORDERS)} orders")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", help="the SQLite file to make")
    parser.add_argument("version", type=int, choices=(1, 2, 3), help="the legacy version")
    arguments = parser.parse_args()
    make_shop(arguments.path, arguments.version)
