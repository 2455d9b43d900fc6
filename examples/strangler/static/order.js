// The page of an order shows its status as it changes. After a break the browser connects again by itself and says in
// Last-Event-ID what it knows, so that it hears of what came in between and of nothing twice.
"use strict";

const badge = document.getElementById("status");
const events = new EventSource(`/api/orders/${badge.dataset.order}/events`);

events.onmessage = (message) => {
  const { status, next } = JSON.parse(message.data);
  badge.textContent = status;
  badge.className = `status ${status}`;
  if (!next.includes("cancelled")) {
    document.getElementById("cancel")?.remove();
  }
  if (next.length === 0) {
    // Nothing will follow; without this the browser would ask again for ever.
    events.close();
  }
};
