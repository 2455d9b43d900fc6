// The live board. Orders come over the WebSocket, the buttons use the JSON API; what a button changes comes back over the
// WebSocket like everybody's changes, so that there is one way in which a card moves.
"use strict";

const connection = document.getElementById("connection");
const columns = new Map(
  [...document.querySelectorAll("[data-status]")].map((section) => [section.dataset.status, section]),
);
let retryAfter = 500;

function card(order, column) {
  const item = document.createElement("li");
  item.id = `order-${order.id}`;
  item.append(line("b", `${order.quantity} × ${order.product}`), line("span", `order ${order.id}, ${order.customer}`));
  const button = line("button", column.dataset.label);
  button.className = "quiet";
  button.onclick = () => move(order, column.dataset.next, button);
  item.append(button);
  return item;
}

function line(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function show(order, fresh) {
  document.getElementById(`order-${order.id}`)?.remove();
  const column = columns.get(order.status);
  if (column) {
    const item = card(order, column);
    item.classList.toggle("fresh", fresh);
    column.querySelector("ol").prepend(item);
  }
  for (const section of columns.values()) {
    section.querySelector(".count").textContent = section.querySelectorAll("li").length;
  }
}

async function move(order, status, button) {
  button.disabled = true;
  const answer = await fetch(`/api/orders/${order.id}`, {
    method: "PATCH",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ status }),
  });
  if (!answer.ok) {
    button.textContent = (await answer.json()).detail;
  }
}

function state(name) {
  connection.textContent = name;
  connection.className = `status ${name}`;
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/orders`);
  socket.onmessage = (message) => {
    const news = JSON.parse(message.data);
    if (news.type === "snapshot") {
      document.querySelectorAll(".board li").forEach((item) => item.remove());
      news.orders.forEach((order) => show(order, false));
      state("live");
      retryAfter = 500;
    } else {
      show(news.order, true);
    }
  };
  socket.onclose = () => {
    state("reconnecting");
    setTimeout(connect, retryAfter);
    retryAfter = Math.min(retryAfter * 2, 8000);
  };
}

connect();
