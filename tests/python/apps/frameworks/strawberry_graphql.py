"""Strawberry: a query, a mutation and a subscription of GraphQL."""

import asyncio
from collections.abc import AsyncIterator

import strawberry
from strawberry.asgi import GraphQL

from . import shop

brewed: list[str] = []


@strawberry.type
class Query:
    @strawberry.field
    def brewed(self) -> list[str]:
        return brewed


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def brew(self, name: str) -> str:
        brewed.append(name)
        return name


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def cups(self, until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number

    @strawberry.subscription
    async def drops(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                await asyncio.sleep(0.01)
        finally:
            shop.journal("the subscription has ended")


app = GraphQL(strawberry.Schema(Query, Mutation, Subscription))
